//! What the kernel half writes into the ring buffer: a [`Header`] and, by [`Kind`], one payload behind it.
//!
//! All structs are `repr(C)` without implicit padding, in the byte order of the machine (little-endian on every
//! supported one). The same bytes go into a recording, so a layout never changes its meaning: a new payload is a
//! new [`Kind`].

mod egress;
mod ipvs;
mod refusal;
mod routing;
mod rules;
mod skipped;
mod sockets;
mod stack;

pub use self::{
    egress::Egress,
    ipvs::{IpvsConn, IpvsService, RAW_BEHIND_LEN, RAW_CONN_LEN, RAW_POINTERS, RawConn, Vip, ipvs_conn},
    refusal::{
        Clash, DESTS_COUNTED, DESTS_LISTED, IpvsDest, IpvsDests, IpvsLimits, PacketState, TooBig, ipvs_dest,
        ipvs_limits, packet_state,
    },
    routing::{Neighbour, Route, neighbour, route},
    rules::{Chain, NftRule, Reject, Table, chain, table},
    skipped::Skipped,
    sockets::{Listener, OPTIONS_LEN, Socket, TimeWait, time_wait},
    stack::{FRAMES, Stack},
};
use crate::tuple::Tuple;

/// Whether a record was made when a function was entered or when it returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// At the function's first instruction, or at a tracepoint.
    Entry = 0,
    /// After the function returned; [`Header::verdict`] holds what it returned.
    Return = 1,
}

/// Which payload follows the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Nothing: the header says it all.
    Packet = 0,
    /// [`IpvsConn`].
    IpvsConn = 1,
    /// [`IpvsService`].
    IpvsService = 2,
    /// [`Conntrack`].
    Conntrack = 3,
    /// [`Chain`]. Number 4 was a shorter one.
    Chain = 16,
    /// [`Drop`].
    Drop = 5,
    /// [`Icmp`].
    Icmp = 6,
    /// [`Socket`].
    Socket = 7,
    /// [`RawConn`].
    RawConn = 8,
    /// [`IpvsDests`].
    IpvsDests = 10,
    /// [`IpvsLimits`].
    IpvsLimits = 11,
    /// [`Clash`].
    Clash = 12,
    /// [`PacketState`].
    PacketState = 13,
    /// [`TooBig`].
    TooBig = 14,
    /// [`Table`].
    Table = 17,
    /// [`Reject`].
    Reject = 18,
    /// [`Listener`].
    Listener = 20,
    /// [`TimeWait`].
    TimeWait = 21,
    /// [`Vip`].
    Vip = 22,
    /// [`Egress`].
    Egress = 23,
    /// [`Route`].
    Route = 25,
    /// [`Neighbour`].
    Neighbour = 26,
    /// [`Stack`].
    Stack = 30,
    /// [`Skipped`].
    Skipped = 31,
}

impl Kind {
    /// The kind with this number, if this version of tracer knows it.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Packet,
            1 => Self::IpvsConn,
            2 => Self::IpvsService,
            3 => Self::Conntrack,
            5 => Self::Drop,
            6 => Self::Icmp,
            7 => Self::Socket,
            8 => Self::RawConn,
            10 => Self::IpvsDests,
            11 => Self::IpvsLimits,
            12 => Self::Clash,
            13 => Self::PacketState,
            14 => Self::TooBig,
            16 => Self::Chain,
            17 => Self::Table,
            18 => Self::Reject,
            20 => Self::Listener,
            21 => Self::TimeWait,
            22 => Self::Vip,
            23 => Self::Egress,
            25 => Self::Route,
            26 => Self::Neighbour,
            30 => Self::Stack,
            31 => Self::Skipped,
            _ => return None,
        })
    }
}

/// What can follow a header.
pub trait Payload {
    /// The number by which readers know it.
    const KIND: Kind;
}

macro_rules! payloads {
    ($($payload:ty => $kind:ident),*) => {
        $(impl Payload for $payload {
            const KIND: Kind = Kind::$kind;
        })*
    };
}
payloads!(() => Packet, IpvsConn => IpvsConn, IpvsService => IpvsService, Conntrack => Conntrack, Chain => Chain,
    Drop => Drop, Icmp => Icmp, Socket => Socket, RawConn => RawConn, IpvsDests => IpvsDests, IpvsLimits => IpvsLimits,
    Clash => Clash, PacketState => PacketState, TooBig => TooBig, Table => Table, Reject => Reject,
    Listener => Listener, TimeWait => TimeWait, Vip => Vip, Egress => Egress, Route => Route, Neighbour => Neighbour,
    Stack => Stack, Skipped => Skipped);

/// The front of every record.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Header {
    /// `bpf_ktime_get_ns()`: nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The flow that the kernel half joined this packet to.
    pub flow: u64,
    /// Address of the `sk_buff`: tells packets apart while they live, nothing more.
    pub skb: u64,
    /// Pairs the entry of a call with its return: the stack pointer at entry. 0 for a hook without a return.
    pub call: u64,
    /// Source and destination as the packet had them at this hook.
    pub tuple: Tuple,
    /// Sequence number in the TCP header, host byte order.
    pub seq: u32,
    /// Acknowledgement number in the TCP header, host byte order.
    pub ack: u32,
    /// Initial sequence number of the flow's SYN, host byte order: NAT leaves it alone.
    pub isn: u32,
    /// Inode number of the network namespace; 0 if unknown.
    pub netns: u32,
    /// Index of the device in that namespace; 0 if unknown.
    pub ifindex: u32,
    /// What the function returned, cut to 32 bits ([`Phase::Return`] only).
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
    /// IP protocol of the outer header ([`crate::tunnel`]) where the packet was seen inside a tunnel; else 0.
    pub encapsulation: u8,
    /// Destination of that outer header, an IPv4 address in network byte order; else 0.
    pub outer_daddr: u32,
}

/// A conntrack entry.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Address of the `struct nf_conn`; 0 when the packet carries none.
    pub ct: u64,
    /// The ORIGINAL tuple.
    pub original: Tuple,
    /// The REPLY tuple: how the answer must look to be translated back.
    pub reply: Tuple,
    /// `nf_conn.status` (`enum ip_conntrack_status`).
    pub status: u32,
    /// `nf_conn.proto.tcp.state` (`enum tcp_conntrack`).
    pub tcp_state: u32,
}

/// Bits and names that belong to [`Conntrack`].
pub mod conntrack {
    /// `IPS_SEEN_REPLY`: a packet went the other way (`uapi/linux/netfilter/nf_conntrack_common.h`, as all of these).
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// `IPS_CONFIRMED`: the entry is in the table.
    pub const CONFIRMED: u32 = 1 << 3;
    /// `IPS_SRC_NAT`.
    pub const SRC_NAT: u32 = 1 << 4;
    /// `IPS_DST_NAT`.
    pub const DST_NAT: u32 = 1 << 5;
    /// `IPS_SRC_NAT_DONE`: the source is chosen, translated or not.
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

/// A packet that the kernel threw away.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Return address of the function that freed the packet.
    pub location: u64,
    /// `enum skb_drop_reason` of this kernel; `u32::MAX` where the kernel has none.
    pub reason: u32,
    /// Always 0.
    pub reserved: u32,
}

/// An ICMP error that the kernel made about the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// ICMP type.
    pub icmp_type: u32,
    /// ICMP code.
    pub code: u32,
}

/// A record as it lies in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record<P> {
    /// The front.
    pub header: Header,
    /// What follows, as [`Header::kind`] says.
    pub payload: P,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoder reads member by member, so an unseen gap would shift everything behind it.
    #[test]
    fn no_struct_has_implicit_padding() {
        assert_eq!(size_of::<Tuple>(), 36);
        assert_eq!(size_of::<Header>(), 4 * 8 + 36 + 6 * 4 + 16 + 2 * 2 + 4 + 4);
        assert_eq!(size_of::<IpvsConn>(), 8 + 4 + 4 + 16 + 2 + 2 + 4 * 7);
        assert_eq!(size_of::<IpvsService>(), 8 + 8 + 16);
        assert_eq!(size_of::<Conntrack>(), 8 + 2 * 36 + 8);
        assert_eq!(size_of::<Chain>(), 32 + 32 + 4 * 4 + size_of::<NftRule>());
        assert_eq!(size_of::<NftRule>(), 16);
        assert_eq!(size_of::<Table>(), 32 + 2 * 16 + 4 * 4);
        assert_eq!(size_of::<Reject>(), 32 + 8 + size_of::<NftRule>());
        assert_eq!(size_of::<Drop>(), 16);
        assert_eq!(size_of::<Icmp>(), 8);
        assert_eq!(size_of::<Socket>(), 16);
        assert_eq!(size_of::<IpvsDest>(), 16 + 2 * 2 + 4 * 4);
        assert_eq!(
            size_of::<IpvsDests>(),
            8 + 4 * 4 + DESTS_LISTED * size_of::<IpvsDest>()
        );
        assert_eq!(size_of::<IpvsLimits>(), 16);
        assert_eq!(size_of::<Clash>(), size_of::<Conntrack>() + 8);
        assert_eq!(size_of::<PacketState>(), 16);
        assert_eq!(size_of::<TooBig>(), 8);
        assert_eq!(size_of::<Listener>(), 8 + 6 * 4);
        assert_eq!(size_of::<TimeWait>(), 8 + 6 * 4 + OPTIONS_LEN);
        assert_eq!(size_of::<Vip>(), 8 + 16 + 8);
        assert_eq!(size_of::<Route>(), 4 * 10 + 16 + 16);
        assert_eq!(size_of::<Neighbour>(), 16 + 8);
        assert_eq!(size_of::<Stack>(), FRAMES * 8);
        assert_eq!(size_of::<Skipped>(), 16);
        assert_eq!(
            size_of::<RawConn>(),
            8 + RAW_CONN_LEN + RAW_BEHIND_LEN * RAW_POINTERS.len()
        );
        assert_eq!(
            size_of::<Record<Chain>>(),
            size_of::<Header>() + size_of::<Chain>()
        );
    }
}
