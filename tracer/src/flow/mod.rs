//! Joins events to flows: which attempt a step belongs to, and the fate of the flow.
//!
//! Pure: no input or output, and no clock but the events' own. [`engine::Engine`] takes [`event::Event`]s in the
//! order in which the kernel wrote them and hands out [`model::Flow`]s whose [`fate::Fate`] is known.

pub mod begun;
pub mod engine;
pub mod fate;
mod gaps;
mod join;
pub mod judge;
pub mod lost;
pub mod model;
pub mod open;
pub mod rank;
pub mod refusal;
pub mod step;
pub mod suspicion;
mod timing;
