//! The interface between the two halves of tracer: the [`record`]s that the kernel half writes, the [`mod@tuple`]s that
//! identify a flow, the table of [`hook`]s, the table of kernel [`field`]s, and constants of the kernel ([`uapi`]).
//!
//! Everything here is plain data for `no_std`. Each table is a macro: from the same rows the kernel half generates a
//! program per hook and a constant per field, and the user half its plan and its decoder.
#![no_std]
#![allow(
    clippy::inline_always,
    reason = "a call costs a BPF program stack that it does not have"
)]

pub mod field;
pub mod flow_number;
pub mod flow_table;
pub mod hook;
pub mod ipv6;
pub mod lost;
pub mod proof;
pub mod record;
pub mod tcp;
pub mod tunnel;
pub mod tuple;
pub mod uapi;
