//! Rules of netfilter.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A base chain of nf_tables that dropped the packet, and the rule in it, or in a chain that it jumps to, that gave the
/// verdict.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Chain {
    /// Name of the table, NUL-terminated and possibly truncated; empty if it could not be read.
    pub table: [u8; 32],
    /// Name of the base chain, NUL-terminated and possibly truncated; empty if it could not be read.
    pub chain: [u8; 32],
    /// Netfilter hook number (`enum nf_inet_hooks`); `u32::MAX` if it could not be read.
    pub nf_hook: u32,
    /// Netfilter family of the packet (`NFPROTO_*`); `u32::MAX` if it could not be read.
    pub family: u32,
    /// The kinds of verdicts that rules gave in this call: bits of [`chain`].
    pub seen: u32,
    /// The last verdict of a rule: one of netfilter's, or one of nf_tables' own, below 0 (`enum nft_verdicts`). Only with
    /// [`chain::IMMEDIATE`] or [`chain::LOOKUP`].
    pub code: i32,
    /// The rule that gave it.
    pub rule: NftRule,
}

/// Bits that belong to [`Chain::seen`].
pub mod chain {
    /// A rule gave a verdict that is part of the rule.
    pub const IMMEDIATE: u32 = 1;
    /// A rule gave a verdict that it looked up in a map.
    pub const LOOKUP: u32 = 1 << 1;
    /// [`super::Chain::code`] was looked up in a map.
    pub const BY_LOOKUP: u32 = 1 << 2;
}

/// A rule of nf_tables, found in the kernel's memory around one of its expressions.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NftRule {
    /// The rule's handle; 0 if it was not found.
    pub handle: u64,
    /// Handle of the next rule in its chain; 0 if there is none, or it was not found.
    pub next: u64,
}

/// A table of iptables that dropped the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Table {
    /// Name of the table, NUL-terminated.
    pub name: [u8; 32],
    /// The device that the packet arrived on; empty if there is none.
    pub input: [u8; 16],
    /// The output device; empty if there is none.
    pub output: [u8; 16],
    /// Netfilter hook number (`enum nf_inet_hooks`); `u32::MAX` if it could not be read.
    pub nf_hook: u32,
    /// The members below that were read: bits of [`table`].
    pub have: u32,
    /// The packet's mark when the table returned.
    pub mark: u32,
    /// State of the packet's connection (`enum ip_conntrack_info`), or [`table::NO_CONNECTION`].
    pub ctinfo: u32,
}

/// Bits that belong to [`Table::have`], and values of its members.
pub mod table {
    pub use crate::uapi::ctinfo::{NEW, UNTRACKED};

    /// `mark` was read.
    pub const MARK: u32 = 1;
    /// `ctinfo` was read.
    pub const CTINFO: u32 = 1 << 1;
    /// The packet has no connection: conntrack found it INVALID.
    pub const NO_CONNECTION: u32 = u32::MAX;
}

/// A rule that rejects the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Reject {
    /// Name of the table of legacy iptables that has the rule, NUL-terminated; empty if the rule is in nf_tables.
    pub table: [u8; 32],
    /// Offset of the rule's target in that table: bytes from its first entry.
    pub target: u32,
    /// Netfilter hook number (`enum nf_inet_hooks`); `u32::MAX` if it could not be read.
    pub nf_hook: u32,
    /// The rule, if it is in nf_tables.
    pub rule: NftRule,
}
