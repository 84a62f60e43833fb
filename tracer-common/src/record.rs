//! What the kernel half writes into the ring buffer: a [`Header`] and, by [`Kind`], one payload behind it.
//!
//! All structs are `repr(C)` without implicit padding, in the byte order of the machine (little-endian on every
//! supported one). The same bytes go into a recording, so a layout never changes its meaning: a new payload is a
//! new [`Kind`].

mod egress;
mod refusal;
mod skipped;
mod stack;

pub use self::egress::Egress;
pub use self::refusal::{
    Clash, DESTS_COUNTED, DESTS_LISTED, IpvsDest, IpvsDests, IpvsLimits, PacketState, TooBig, ipvs_dest,
    ipvs_limits, packet_state,
};
pub use self::{
    skipped::Skipped,
    stack::{FRAMES, Stack},
};
use crate::tuple::{Addr, Tuple};

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

/// An IPVS connection entry, read when the kernel used it for this packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct IpvsConn {
    /// Address of the `struct ip_vs_conn`; 0 when the function returned none.
    pub conn: u64,
    /// Which members below were read: bits of [`ipvs_conn`].
    pub have: u32,
    /// `ip_vs_conn.flags`.
    pub flags: u32,
    /// Address of the real server (`daddr`).
    pub daddr: Addr,
    /// Port of the real server (`dport`), host byte order.
    pub dport: u16,
    /// `ip_vs_conn.state`: see [`ipvs_conn::state_name`].
    pub state: u16,
    /// Weight of the real server.
    pub weight: i32,
    /// 1 while the real server is in the service, 0 once it was removed (`IP_VS_DEST_F_AVAILABLE`).
    pub available: u32,
    /// `net.ipv4.vs.conn_reuse_mode` of the packet's netns.
    pub conn_reuse_mode: i32,
    /// `net.ipv4.vs.expire_nodest_conn` of the packet's netns.
    pub expire_nodest_conn: i32,
    /// `nf_conn.status` of the conntrack entry that the packet carries.
    pub ct_status: u32,
    /// `nf_conn.proto.tcp.state` of the conntrack entry that the packet carries.
    pub ct_tcp_state: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Bits and names that belong to [`IpvsConn`].
pub mod ipvs_conn {
    /// `daddr` and `dport` were read.
    pub const BACKEND: u32 = 1;
    /// `state` was read.
    pub const STATE: u32 = 1 << 1;
    /// `flags` were read.
    pub const FLAGS: u32 = 1 << 2;
    /// The entry has a real server bound to it, and `weight` was read.
    pub const WEIGHT: u32 = 1 << 3;
    /// `available` was read.
    pub const AVAILABLE: u32 = 1 << 4;
    /// `conn_reuse_mode` was read.
    pub const REUSE_MODE: u32 = 1 << 5;
    /// `expire_nodest_conn` was read.
    pub const EXPIRE_NODEST: u32 = 1 << 6;
    /// The packet carried a conntrack entry, and `ct_status` was read.
    pub const CT_STATUS: u32 = 1 << 7;
    /// `ct_tcp_state` was read.
    pub const CT_TCP_STATE: u32 = 1 << 8;
    /// The entry has no real server bound to it (`dest` is NULL).
    pub const NO_DEST: u32 = 1 << 9;
    /// The entry is controlled by a persistence template (`control` is not NULL).
    pub const CONTROLLED: u32 = 1 << 10;
    /// `control` was read.
    pub const CONTROL: u32 = 1 << 11;

    /// `IP_VS_TCP_S_TIME_WAIT` (`include/net/ip_vs.h`, unchanged from 3.10 to 7.3).
    pub const TIME_WAIT: u16 = 5;
    /// `IP_VS_TCP_S_CLOSE`.
    pub const CLOSE: u16 = 6;

    /// Name of an IPVS TCP state (`enum ip_vs_tcp_states`, `include/net/ip_vs.h`, unchanged from 3.10 to 7.3).
    #[must_use]
    pub const fn state_name(state: u16) -> Option<&'static str> {
        Some(match state {
            0 => "NONE",
            1 => "ESTABLISHED",
            2 => "SYN_SENT",
            3 => "SYN_RECV",
            4 => "FIN_WAIT",
            5 => "TIME_WAIT",
            6 => "CLOSE",
            7 => "CLOSE_WAIT",
            8 => "LAST_ACK",
            9 => "LISTEN",
            10 => "SYNACK",
            _ => return None,
        })
    }
}

/// An IPVS virtual service.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct IpvsService {
    /// Address of the `struct ip_vs_service`.
    pub service: u64,
    /// Number of real servers, of any weight; `u32::MAX` if it could not be read.
    pub num_dests: u32,
    /// Always 0.
    pub reserved: u32,
    /// Name of the scheduler, NUL-terminated; empty if it could not be read.
    pub scheduler: [u8; 16],
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

/// A base chain of nf_tables that discarded the packet, and the rule in it, or in a chain that it jumps to, that said
/// so.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name of the table, NUL-terminated and possibly cut; empty if it could not be read.
    pub table: [u8; 32],
    /// Name of the base chain, NUL-terminated and possibly cut; empty if it could not be read.
    pub chain: [u8; 32],
    /// Netfilter hook number (`enum nf_inet_hooks`); `u32::MAX` if it could not be read.
    pub nf_hook: u32,
    /// Netfilter family of the packet (`NFPROTO_*`); `u32::MAX` if it could not be read.
    pub family: u32,
    /// What rules were seen to do in this call: bits of [`chain`].
    pub seen: u32,
    /// The last verdict that a rule was seen to give: one of netfilter's, or one of nf_tables' own, below 0
    /// (`enum nft_verdicts`). Only with [`chain::IMMEDIATE`] or [`chain::LOOKUP`].
    pub code: i32,
    /// The rule that gave it.
    pub rule: NftRule,
}

/// Bits that belong to [`Chain::seen`].
pub mod chain {
    /// A rule gave a verdict that is written in it.
    pub const IMMEDIATE: u32 = 1;
    /// A rule gave a verdict that it looked up in a map.
    pub const LOOKUP: u32 = 1 << 1;
    /// [`super::Chain::code`] was looked up in a map.
    pub const BY_LOOKUP: u32 = 1 << 2;
}

/// A rule of nf_tables, as the kernel's memory around one of its expressions tells.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct NftRule {
    /// The rule's handle; 0 if it could not be told.
    pub handle: u64,
    /// Handle of the rule behind it in its chain; 0 if there is none, or if it could not be told.
    pub next: u64,
}

/// A table of iptables that discarded the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name of the table, NUL-terminated.
    pub name: [u8; 32],
    /// The device that the packet came in by; empty if there is none.
    pub input: [u8; 16],
    /// The device that the packet is to go out by; empty if there is none.
    pub output: [u8; 16],
    /// Netfilter hook number (`enum nf_inet_hooks`); `u32::MAX` if it could not be read.
    pub nf_hook: u32,
    /// Which members below were read: bits of [`table`].
    pub have: u32,
    /// The packet's mark, when the table was through with it.
    pub mark: u32,
    /// State of the packet's connection (`enum ip_conntrack_info`), or [`table::NO_CONNECTION`].
    pub ctinfo: u32,
}

/// Bits that belong to [`Table::have`], and values of its members.
pub mod table {
    /// `mark` was read.
    pub const MARK: u32 = 1;
    /// `ctinfo` was read.
    pub const CTINFO: u32 = 1 << 1;
    /// Conntrack gave the packet no connection: it found the packet invalid.
    pub const NO_CONNECTION: u32 = u32::MAX;
    /// `IP_CT_UNTRACKED` (`uapi/linux/netfilter/nf_conntrack_common.h`): conntrack was told to leave it alone.
    pub const UNTRACKED: u32 = 7;
    /// `IP_CT_NEW`.
    pub const NEW: u32 = 2;
}

/// A rule that rejects the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Name of the legacy table of iptables that holds the rule, NUL-terminated; empty if nf_tables holds it.
    pub table: [u8; 32],
    /// Where in that table the rule's target stands: bytes from its first entry.
    pub target: u32,
    /// Netfilter hook number (`enum nf_inet_hooks`); `u32::MAX` if it could not be read.
    pub nf_hook: u32,
    /// The rule, if nf_tables holds it.
    pub rule: NftRule,
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

/// The socket that took or refused the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Address of the `struct sock`; 0 when no socket was found.
    pub sock: u64,
    /// Connections that wait for `accept()`; `u32::MAX` if it could not be read.
    pub ack_backlog: u32,
    /// How many may wait; `u32::MAX` if it could not be read.
    pub max_ack_backlog: u32,
}

/// A listening socket at the moment at which it is asked about a SYN (`tcp_conn_request`). `u32::MAX` stands for what
/// could not be read.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address of the `struct sock`.
    pub sock: u64,
    /// Connections that wait for `accept()`.
    pub ack_backlog: u32,
    /// How many may wait (the smaller one of what `listen()` asked for and `somaxconn`). One more is let in.
    pub max_ack_backlog: u32,
    /// Handshakes that wait for the client's ACK.
    pub syn_queue: u32,
    /// `net.ipv4.tcp_max_syn_backlog` of the socket's network namespace.
    pub max_syn_backlog: u32,
    /// `net.ipv4.tcp_syncookies` of the socket's network namespace.
    pub syncookies: u32,
    /// 0, unless the application asked for `TCP_DEFER_ACCEPT`: then the handshake ends with the first data.
    pub defer_accept: u32,
}

/// Bytes that TCP options can take.
pub const OPTIONS_LEN: usize = 40;

/// The socket of an ended connection that a SYN met, and the SYN's options.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWait {
    /// Address of the `struct tcp_timewait_sock`.
    pub sock: u64,
    /// Which members below were read: bits of [`time_wait`].
    pub have: u32,
    /// The sequence number that the old connection expected next.
    pub rcv_nxt: u32,
    /// The last timestamp of the old connection's client (RFC 7323 `TS.Recent`).
    pub ts_recent: u32,
    /// When that was, in seconds since boot; 0 if the old connection had no timestamps.
    pub ts_recent_stamp: i32,
    /// TCP state of the socket: [`time_wait::FIN_WAIT2`] or [`time_wait::TIME_WAIT`].
    pub substate: u32,
    /// How many bytes of `options` the SYN has.
    pub options_len: u32,
    /// The SYN's TCP options.
    pub options: [u8; OPTIONS_LEN],
}

/// Bits and names that belong to [`TimeWait`].
pub mod time_wait {
    /// `rcv_nxt` was read.
    pub const RCV_NXT: u32 = 1;
    /// `ts_recent` and `ts_recent_stamp` were read.
    pub const TS_RECENT: u32 = 1 << 1;
    /// `substate` was read.
    pub const SUBSTATE: u32 = 1 << 2;
    /// `options` were read.
    pub const OPTIONS: u32 = 1 << 3;

    /// `TCP_FIN_WAIT2` (`include/net/tcp_states.h`): the client has not closed its half of the old connection.
    pub const FIN_WAIT2: u32 = 5;
    /// `TCP_TIME_WAIT`.
    pub const TIME_WAIT: u32 = 6;

    /// `TCP_TW_SUCCESS` (`enum tcp_tw_status`, `include/net/tcp.h`, values unchanged from 3.10 to 7.3): nothing is
    /// sent.
    pub const SUCCESS: i32 = 0;
    /// `TCP_TW_RST`: a RST is sent.
    pub const RST: i32 = 1;
    /// `TCP_TW_ACK`: an ACK is sent.
    pub const ACK: i32 = 2;
    /// `TCP_TW_SYN`: a listener may take the SYN.
    pub const SYN: i32 = 3;
    /// `TCP_TW_ACK_OOW` (7.x): an ACK is sent, for a segment outside of the window.
    pub const ACK_OOW: i32 = 4;
}

/// The virtual service to which an answer is about to be translated back, where that is not the one that the client
/// asked.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Address of the `struct ip_vs_conn`.
    pub conn: u64,
    /// Address of the virtual service.
    pub addr: Addr,
    /// Its port, host byte order.
    pub port: u32,
    /// Always 0.
    pub reserved: u32,
}

/// What the routing layer decided about the packet, or with which settings it refused it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which members below were read: bits of [`route`].
    pub have: u32,
    /// Netfilter hook (`enum nf_inet_hooks`) at which it was read; `u32::MAX` if it was read elsewhere.
    pub nf_hook: u32,
    /// Kind of the route (`RTN_*`, uapi/linux/rtnetlink.h).
    pub kind: u32,
    /// `dst_entry.error`: a positive errno.
    pub error: i32,
    /// `net.ipv4.conf.DEVICE.forwarding` of the device by which the packet came in.
    pub forwarding: i32,
    /// `net.ipv4.conf.all.forwarding`, which `net.ipv4.ip_forward` is another name of.
    pub forwarding_all: i32,
    /// `net.ipv4.conf.DEVICE.rp_filter` of the device by which the packet came in.
    pub rp_filter: i32,
    /// `net.ipv4.conf.all.rp_filter`. The larger of both counts.
    pub rp_filter_all: i32,
    /// 1 if `accept_local` is on for that device or for all: a source of the namespace's own is no martian then.
    pub accept_local: u32,
    /// Index of the device that the packet is to leave by.
    pub out_ifindex: u32,
    /// Name of that device, NUL-terminated.
    pub out_dev: [u8; 16],
    /// The next hop; unset if the destination itself is one.
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

    /// `RTN_UNICAST` (uapi/linux/rtnetlink.h): a next hop, or a neighbour.
    pub const UNICAST: u32 = 1;
    /// `RTN_LOCAL`: an address of the namespace itself.
    pub const LOCAL: u32 = 2;
}

/// The neighbour entry on which a packet waits. The header's device is the entry's.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The next hop whose hardware address is asked for; unset if it could not be read.
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

/// Bytes of an IPVS connection entry in a [`RawConn`].
pub const RAW_CONN_LEN: usize = 288;
/// Bytes behind each pointer in a [`RawConn`].
pub const RAW_BEHIND_LEN: usize = 128;
/// Offsets in `struct ip_vs_conn` at which some kernel before 5.11 keeps the pointer to the real server: what a
/// [`RawConn`] follows, so that the right one can be proven. They differ by the size of `struct timer_list`.
pub const RAW_POINTERS: [u32; 3] = [184, 216, 224];

/// The raw memory of an IPVS connection entry, for proving a layout against what the kernel prints of it.
/// [`Header::flow`] is the thread that printed it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawConn {
    /// Address of the `struct ip_vs_conn`.
    pub conn: u64,
    /// The memory from there on.
    pub bytes: [u8; RAW_CONN_LEN],
    /// The memory behind the words at [`RAW_POINTERS`]; zeroes where it cannot be read.
    pub behind: [[u8; RAW_BEHIND_LEN]; RAW_POINTERS.len()],
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
