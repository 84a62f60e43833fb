//! State that is read only when the kernel refuses a packet or a connection: the values that its decision depends on.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Conntrack;
use crate::tuple::Addr;

/// The most real servers that an [`IpvsDests`] lists.
pub const DESTS_LISTED: usize = 8;
/// The most real servers that an [`IpvsDests`] counts.
pub const DESTS_COUNTED: u32 = 64;

/// The real servers of an IPVS service when its scheduler found none usable.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IpvsDests {
    /// Address of the `struct ip_vs_service`.
    pub service: u64,
    /// How many were counted.
    pub counted: u32,
    /// 1 if those are all: the list was followed back to the service.
    pub complete: u32,
    /// How many of them have a nonzero weight.
    pub with_weight: u32,
    /// How many of those with a weight are marked as overloaded (`IP_VS_DEST_F_OVERLOAD`).
    pub overloaded: u32,
    /// The first of them.
    pub listed: [IpvsDest; DESTS_LISTED],
}

/// A real server of an IPVS service.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IpvsDest {
    /// Its address (`addr`); unset if it could not be read.
    pub addr: Addr,
    /// Its port, host byte order.
    pub port: u16,
    /// The members below that were read: bits of [`ipvs_dest`].
    pub have: u16,
    /// Its weight.
    pub weight: i32,
    /// `ip_vs_dest.flags`.
    pub flags: u32,
    /// Connections that count against its threshold (`ip_vs_dest_totalconns()`).
    pub conns: u32,
    /// `ip_vs_dest.u_threshold`: the number of connections at which it is overloaded; 0 for no limit.
    pub upper: u32,
}

/// Bits that belong to [`IpvsDest`].
pub mod ipvs_dest {
    /// `weight` was read.
    pub const WEIGHT: u16 = 1;
    /// `flags` were read.
    pub const FLAGS: u16 = 1 << 1;
    /// `conns` was read.
    pub const CONNS: u16 = 1 << 2;
    /// `upper` was read.
    pub const UPPER: u16 = 1 << 3;

    /// `IP_VS_DEST_F_OVERLOAD` (`include/uapi/linux/ip_vs.h`, unchanged from 3.10 to 7.3).
    pub const OVERLOAD: u32 = 2;
}

/// The limits on new IPVS connections in a network namespace when one was refused.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IpvsLimits {
    /// The members below that were read: bits of [`ipvs_limits`].
    pub have: u32,
    /// `netns_ipvs.drop_rate`: one in this many new connections is dropped; 0 for none.
    pub drop_rate: i32,
    /// `netns_ipvs.conn_count`: connection entries in this network namespace.
    pub conn_count: i32,
    /// `netns_ipvs.sysctl_conn_max` (since 7.2).
    pub conn_max: i32,
}

/// Bits that belong to [`IpvsLimits`].
pub mod ipvs_limits {
    /// `drop_rate` was read.
    pub const DROP_RATE: u32 = 1;
    /// `conn_count` was read.
    pub const CONN_COUNT: u32 = 1 << 1;
    /// `conn_max` was read.
    pub const CONN_MAX: u32 = 1 << 2;
}

/// The conntrack entry that already uses the tuple of a new one.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Clash {
    /// The entry that is in the table.
    pub holder: Conntrack,
    /// 0 if its ORIGINAL tuple is the one that the new entry needs, 1 if its REPLY tuple is.
    pub direction: u32,
    /// `nf_conn.status` of the new entry.
    pub status: u32,
}

/// The conntrack state of a packet when it was dropped.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PacketState {
    /// Address of the `struct nf_conn`; 0 if the packet has none.
    pub ct: u64,
    /// `enum ip_conntrack_info` of the packet; see [`packet_state`].
    pub info: u32,
    /// `nf_conn.status` of the entry; 0 if there is none.
    pub status: u32,
}

/// Values that belong to [`PacketState`].
pub mod packet_state {
    pub use crate::uapi::ctinfo::UNTRACKED;
}

/// Bytes of the longest TCP header.
pub const TCP_HEADER_LEN: usize = 60;

/// The TCP header of a packet that was dropped, on kernels without drop reasons: it shows whether the checksum is wrong.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TcpHeader {
    /// `sk_buff.len`, bytes: in TCP, the length of the segment.
    pub length: u32,
    /// The packet from its TCP header on, with undefined bytes after the end of the segment; zeroes if they could not be
    /// read.
    pub bytes: [u8; TCP_HEADER_LEN],
}

/// A packet that exceeds the MTU of its path, as the kernel reports it to the sender.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TooBig {
    /// The largest packet that fits, bytes.
    pub mtu: u32,
    /// Length of the packet (`sk_buff.len`), bytes; 0 if it could not be read.
    pub length: u32,
}
