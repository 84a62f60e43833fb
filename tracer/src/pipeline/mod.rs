//! Passes records, live or from a recording, through the engine and the diagnosis to the observers.

pub mod diagnosis;
pub mod error;
pub mod live;
pub mod merge;
pub mod preflight;
pub mod recordings;
pub mod replay;
pub mod signals;
mod surroundings;
