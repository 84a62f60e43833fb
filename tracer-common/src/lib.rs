//! What both halves of tracer agree on: the [`record`]s that the kernel half writes, the [`mod@tuple`]s that name a
//! flow, the table of [`hook`]s and the table of kernel [`field`]s.
//!
//! Everything here is plain data for `no_std`. Each table is a macro, so that the kernel half can generate one
//! program a hook and one constant a field from the same rows that the user half plans with.
#![no_std]
#![allow(
    clippy::inline_always,
    reason = "a call costs a BPF program stack that it does not have"
)]

pub mod field;
pub mod hook;
pub mod ipv6;
pub mod record;
pub mod tcp;
pub mod tunnel;
pub mod tuple;
pub mod verdict;
