//! tracer: the user half.
//!
//! Data goes one way: [`probe`] yields the kernel's records, [`flow`] joins them to flows and their fates,
//! [`diagnose`] gives causes, [`report`], [`export`] and [`cli`] show them.

pub mod cli;
pub mod diagnose;
pub mod export;
pub mod flow;
pub mod node;
pub mod probe;
pub mod report;
pub mod trace;
pub mod tui;
