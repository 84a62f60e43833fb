//! tracer: the user half.
//!
//! Data moves in one direction: [`probe`] yields the kernel's records, [`decode`] turns them into events, [`flow`] joins those
//! to flows with their fates, and [`diagnose`] finds causes from flows and [`facts`]. The [`pipeline`] hands each [`finding`] to
//! [`report`], [`export`], [`recording`] and [`tui`]. [`cli`] has one file per command. [`confine`] takes away what a command
//! does not need any more.

// Everything that is printed is escaped first: see `report::escape`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod check;
pub mod cli;
pub mod confine;
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
