//! Routes and neighbours.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tuple::Addr;

/// The routing decision about the packet, or the settings with which routing refused it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Route {
    /// The members below that were read: bits of [`route`].
    pub have: u32,
    /// Netfilter hook (`enum nf_inet_hooks`) at which it was read; `u32::MAX` if it was read elsewhere.
    pub nf_hook: u32,
    /// Type of the route (`RTN_*`, uapi/linux/rtnetlink.h).
    pub kind: u32,
    /// `dst_entry.error`: a positive errno.
    pub error: i32,
    /// `net.ipv4.conf.DEVICE.forwarding` of the device that the packet arrived on.
    pub forwarding: i32,
    /// `net.ipv4.conf.all.forwarding`, also known as `net.ipv4.ip_forward`.
    pub forwarding_all: i32,
    /// `net.ipv4.conf.DEVICE.rp_filter` of the device that the packet arrived on.
    pub rp_filter: i32,
    /// `net.ipv4.conf.all.rp_filter`. The larger of the two applies.
    pub rp_filter_all: i32,
    /// 1 if `accept_local` is on for that device or for all: a source address of the node's own is then not a martian.
    pub accept_local: u32,
    /// Index of the output device.
    pub out_ifindex: u32,
    /// Name of that device, NUL-terminated.
    pub out_dev: [u8; 16],
    /// The gateway; unset if the destination is on the link.
    pub gateway: Addr,
}

/// Bits that belong to [`Route`].
pub mod route {
    /// `kind` was read.
    pub const KIND: u32 = 1;
    /// `out_ifindex` and `out_dev` were read.
    pub const OUT: u32 = 1 << 1;
    /// `error` was read.
    pub const ERROR: u32 = 1 << 2;
    /// `forwarding` was read.
    pub const FORWARDING: u32 = 1 << 3;
    /// `forwarding_all` was read.
    pub const FORWARDING_ALL: u32 = 1 << 4;
    /// `rp_filter` was read.
    pub const RP_FILTER: u32 = 1 << 5;
    /// `rp_filter_all` was read.
    pub const RP_FILTER_ALL: u32 = 1 << 6;
    /// `accept_local` was read.
    pub const ACCEPT_LOCAL: u32 = 1 << 7;

    /// `RTN_UNICAST` (uapi/linux/rtnetlink.h): a gateway, or a destination on the link.
    pub const UNICAST: u32 = 1;
    /// `RTN_LOCAL`: an address of the namespace itself.
    pub const LOCAL: u32 = 2;
}

/// A SYN or SYN-ACK that arrived from a device.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Arrival {
    /// The TTL of its IPv4 header, or the hop limit of its IPv6 header.
    pub ttl: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The mark with which the kernel looked up a route: that of a packet that was refused or dropped, or, at a listener that
/// drops a SYN, that of its answer.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mark {
    /// `sk_buff.mark`, or the mark of the answer (`inet_request_mark`, `include/net/inet_sock.h`).
    pub mark: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The neighbour entry that a packet is queued on. The header's device is that of the entry.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Neighbour {
    /// The next hop that ARP/ND resolves; unset if it could not be read.
    pub address: Addr,
    /// `neighbour.nud_state` (`NUD_*`, uapi/linux/neighbour.h); `u32::MAX` if it could not be read.
    pub state: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Names that belong to [`Neighbour`].
pub mod neighbour {
    /// Name of a neighbour's state as `ip neigh` prints it (uapi/linux/neighbour.h).
    #[must_use]
    pub const fn state_name(state: u32) -> Option<&'static str> {
        Some(match state {
            0 => "NONE",
            0x01 => "INCOMPLETE",
            0x02 => "REACHABLE",
            0x04 => "STALE",
            0x08 => "DELAY",
            0x10 => "PROBE",
            0x20 => "FAILED",
            0x40 => "NOARP",
            0x80 => "PERMANENT",
            _ => return None,
        })
    }
}
