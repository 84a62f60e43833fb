//! tracer: the user half.
//!
//! Data goes one way: [`probe`] yields the kernel's records, [`decode`] turns them into events, [`flow`] joins those to
//! flows and their fates, [`diagnose`] gives causes from flows and [`facts`], and a [`finding`] is what [`report`],
//! [`export`], [`recording`] and [`tui`] are handed by the [`pipeline`]. [`cli`] is one file per command.

// Everything that is printed is escaped first: see `report::escape`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod decode;
pub mod diagnose;
pub mod export;
pub mod facts;
pub mod finding;
pub mod flow;
pub mod node;
pub mod pipeline;
pub mod probe;
pub mod recording;
pub mod report;
pub mod tui;
