//! The records that the kernel half writes into the ring buffer: a [`Header`] and, by [`Kind`], one payload after it.
//!
//! All structs are `repr(C)` and little-endian, and `zerocopy` refuses to compile one with padding. The same bytes go
//! into a recording, so a layout never changes its meaning: a payload with another layout is a new row of the
//! [table](crate::for_each_payload), a header with another layout is a new [`HeaderVersion`].

mod egress;
mod ipvs;
mod netns;
mod payload;
mod refusal;
mod routing;
mod rules;
mod skipped;
mod sockets;
mod stack;

pub use self::{
    egress::Egress,
    ipvs::{IpvsConn, IpvsService, RAW_CONN_LEN, RAW_POINTEE_LEN, RAW_POINTERS, RawConn, Vip, ipvs_conn},
    netns::Netns,
    payload::{Kind, OfKind},
    refusal::{
        Clash, DESTS_COUNTED, DESTS_LISTED, IpvsDest, IpvsDests, IpvsLimits, PacketState, TCP_HEADER_LEN,
        TcpHeader, TooBig, ipvs_dest, ipvs_limits, packet_state,
    },
    routing::{Arrival, Mark, Neighbour, Route, neighbour, route},
    rules::{Chain, NftRule, Reject, Table, chain, table},
    skipped::Skipped,
    sockets::{Listener, OPTIONS_LEN, OwnConnection, Socket, TimeWait, time_wait},
    stack::{FRAMES, Stack},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tuple::Tuple;

/// Whether a record is from a function's entry or its return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// At the function's first instruction, or at a tracepoint.
    Entry = 0,
    /// After the function returned; [`Header::verdict`] holds its return value.
    Return = 1,
}

// Readers use the bytes of a number unconverted, and the kernel half runs on x86-64 only.
#[cfg(not(target_endian = "little"))]
compile_error!("records are little-endian: tracer reads and writes them on little-endian machines only");

/// The layout of the header that every record of a recording has.
///
/// Nothing in a record names it. A recording names it once, in the member `records` of its head; the ring buffer
/// carries [`Self::CURRENT`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum HeaderVersion {
    /// [`Header`].
    V1 = 1,
}

impl HeaderVersion {
    /// The version that this tracer's kernel half writes.
    pub const CURRENT: Self = Self::V1;

    /// The version with this number; `None` for that of a newer tracer.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            _ => None,
        }
    }
}

/// The header of every record.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// `bpf_ktime_get_ns()`: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The flow of the packet ([`crate::flow_number`]).
    pub flow: u64,
    /// Address of the `sk_buff`: identifies a packet only while it exists.
    pub skb: u64,
    /// Pairs the entry of a call with its return: the stack pointer at entry. 0 for a hook without a return.
    pub call: u64,
    /// Source and destination of the packet at this hook.
    pub tuple: Tuple,
    /// Sequence number in the TCP header, host byte order.
    pub seq: u32,
    /// Acknowledgement number in the TCP header, host byte order.
    pub ack: u32,
    /// Initial sequence number of the flow's SYN, host byte order: NAT does not change it.
    pub isn: u32,
    /// Inode number of the network namespace; 0 if unknown.
    pub netns: u32,
    /// Index of the device in that namespace; 0 if unknown.
    pub ifindex: u32,
    /// The function's return value, truncated to 32 bits ([`Phase::Return`] only).
    pub verdict: i32,
    /// Name of the device, NUL-terminated; empty if unknown.
    pub dev: [u8; 16],
    /// Number of the hook ([`crate::hook::Hook`]).
    pub hook: u16,
    /// CPU that wrote the record.
    pub cpu: u16,
    /// Number of the payload's [`Kind`].
    pub kind: u8,
    /// Number of the [`Phase`].
    pub phase: u8,
    /// Flags byte of the TCP header.
    pub tcp_flags: u8,
    /// For a packet inside a tunnel, the IP protocol of the outer header ([`crate::tunnel`]); otherwise 0.
    pub encapsulation: u8,
    /// Destination of that outer header, an IPv4 address in network byte order; otherwise 0.
    pub outer_daddr: u32,
}

/// A conntrack entry.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Conntrack {
    /// Address of the `struct nf_conn`; 0 if the packet has none.
    pub ct: u64,
    /// The ORIGINAL tuple.
    pub original: Tuple,
    /// The REPLY tuple: an answer must match it to be translated back.
    pub reply: Tuple,
    /// `nf_conn.status` (`enum ip_conntrack_status`).
    pub status: u32,
    /// `nf_conn.proto.tcp.state` (`enum tcp_conntrack`).
    pub tcp_state: u32,
}

/// Bits and names that belong to [`Conntrack`].
pub mod conntrack {
    /// `IPS_SEEN_REPLY`: an answer was seen (`uapi/linux/netfilter/nf_conntrack_common.h`, as all of these).
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// `IPS_CONFIRMED`: the entry is in the table.
    pub const CONFIRMED: u32 = 1 << 3;
    /// `IPS_SRC_NAT`.
    pub const SRC_NAT: u32 = 1 << 4;
    /// `IPS_DST_NAT`.
    pub const DST_NAT: u32 = 1 << 5;
    /// `IPS_SRC_NAT_DONE`: SNAT is decided, with a translation or without one.
    pub const SRC_NAT_DONE: u32 = 1 << 7;

    /// Name of a TCP state of conntrack (`uapi/linux/netfilter/nf_conntrack_tcp.h`).
    #[must_use]
    pub const fn tcp_state_name(state: u32) -> Option<&'static str> {
        Some(match state {
            0 => "NONE",
            1 => "SYN_SENT",
            2 => "SYN_RECV",
            3 => "ESTABLISHED",
            4 => "FIN_WAIT",
            5 => "CLOSE_WAIT",
            6 => "LAST_ACK",
            7 => "TIME_WAIT",
            8 => "CLOSE",
            9 => "SYN_SENT2",
            _ => return None,
        })
    }
}

/// A packet that the kernel dropped.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Drop {
    /// Return address of the function that freed the packet.
    pub location: u64,
    /// `enum skb_drop_reason` of this kernel; `u32::MAX` where the kernel has none.
    pub reason: u32,
    /// Always 0.
    pub reserved: u32,
}

/// An ICMP error that the kernel sends about the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Icmp {
    /// ICMP type.
    pub icmp_type: u32,
    /// ICMP code.
    pub code: u32,
}

/// A record as laid out in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record<P> {
    /// The header.
    pub header: Header,
    /// The payload, of the kind in [`Header::kind`].
    pub payload: P,
}

impl<P: IntoBytes> Record<P> {
    /// Size in words of eight bytes, of which the ring buffer consists. Does not compile for a payload that would leave
    /// padding before, inside or after it.
    pub const WORDS: usize = {
        let size = size_of::<Self>();
        assert!(
            size == size_of::<Header>() + size_of::<P>(),
            "a record has padding"
        );
        assert!(size.is_multiple_of(8), "a record is not a whole number of words");
        size / 8
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recordings hold these bytes: a member that moves makes them unreadable.
    #[test]
    fn sizes_are_those_of_recordings() {
        assert_eq!(size_of::<Tuple>(), 36);
        assert_eq!(size_of::<Header>(), 120);
        assert_eq!(size_of::<IpvsConn>(), 64);
        assert_eq!(size_of::<IpvsService>(), 32);
        assert_eq!(size_of::<Conntrack>(), 88);
        assert_eq!(size_of::<Chain>(), 96);
        assert_eq!(size_of::<NftRule>(), 16);
        assert_eq!(size_of::<Table>(), 80);
        assert_eq!(size_of::<Reject>(), 56);
        assert_eq!(size_of::<Drop>(), 16);
        assert_eq!(size_of::<Icmp>(), 8);
        assert_eq!(size_of::<Socket>(), 16);
        assert_eq!(size_of::<IpvsDest>(), 36);
        assert_eq!(size_of::<IpvsDests>(), 24 + DESTS_LISTED * 36);
        assert_eq!(size_of::<IpvsLimits>(), 16);
        assert_eq!(size_of::<Clash>(), 96);
        assert_eq!(size_of::<PacketState>(), 16);
        assert_eq!(size_of::<TooBig>(), 8);
        assert_eq!(size_of::<Listener>(), 32);
        assert_eq!(size_of::<OwnConnection>(), 8);
        assert_eq!(size_of::<TimeWait>(), 32 + OPTIONS_LEN);
        assert_eq!(size_of::<Vip>(), 32);
        assert_eq!(size_of::<Route>(), 72);
        assert_eq!(size_of::<Neighbour>(), 24);
        assert_eq!(size_of::<Arrival>(), 8);
        assert_eq!(size_of::<Egress>(), 32);
        assert_eq!(size_of::<Stack>(), 128);
        assert_eq!(size_of::<Skipped>(), 16);
        assert_eq!(size_of::<Netns>(), 24);
        assert_eq!(size_of::<RawConn>(), 8 + 288 + 128 * 3);
    }

    #[test]
    fn header_versions_are_found_by_number() {
        assert_eq!(
            HeaderVersion::from_number(HeaderVersion::CURRENT as u32),
            Some(HeaderVersion::CURRENT)
        );
        assert_eq!(HeaderVersion::from_number(0), None);
        assert_eq!(HeaderVersion::from_number(2), None);
    }
}
