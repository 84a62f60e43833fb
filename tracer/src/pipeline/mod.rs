//! From a source of records, live or a recording, through engine and diagnosis to the observers.

pub mod diagnosis;
pub mod error;
pub mod live;
pub mod merge;
pub mod preflight;
pub mod recordings;
pub mod replay;
pub mod signals;
