//! The input of observers: a flow with its verdict, the state of the run, and the traits between a source of records and
//! its observers. Pure: no files, no clock but the events'.

pub mod clock;
pub mod costs;
pub mod depth;
pub mod head;
pub mod hook_state;
pub mod observer;
pub mod outcome;
pub mod run;
pub mod sandbox;
pub mod selection;
pub mod sink;
pub mod totals;
pub mod verdict;

pub use self::{clock::Clock, observer::Observer, verdict::Finding};
