//! IPVS: connection entries, services, and decisions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tuple::Addr;

/// An IPVS connection entry when the kernel used it for this packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IpvsConn {
    /// Address of the `struct ip_vs_conn`; 0 if the function returned none.
    pub conn: u64,
    /// The members below that were read: bits of [`ipvs_conn`].
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
    /// `nf_conn.status` of the packet's conntrack entry.
    pub ct_status: u32,
    /// `nf_conn.proto.tcp.state` of the packet's conntrack entry.
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
    /// The entry has a real server, and `weight` was read.
    pub const WEIGHT: u32 = 1 << 3;
    /// `available` was read.
    pub const AVAILABLE: u32 = 1 << 4;
    /// `conn_reuse_mode` was read.
    pub const REUSE_MODE: u32 = 1 << 5;
    /// `expire_nodest_conn` was read.
    pub const EXPIRE_NODEST: u32 = 1 << 6;
    /// The packet had a conntrack entry, and `ct_status` was read.
    pub const CT_STATUS: u32 = 1 << 7;
    /// `ct_tcp_state` was read.
    pub const CT_TCP_STATE: u32 = 1 << 8;
    /// The entry has no real server (`dest` is NULL).
    pub const NO_DEST: u32 = 1 << 9;
    /// The entry is controlled by a persistence template (`control` is not NULL).
    pub const CONTROLLED: u32 = 1 << 10;
    /// `control` was read.
    pub const CONTROL: u32 = 1 << 11;

    /// `IP_VS_TCP_S_FIN_WAIT` (`include/net/ip_vs.h`, unchanged from 3.10 to 7.3).
    pub const FIN_WAIT: u16 = 4;
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
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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

/// The virtual service that an answer is translated back to, where the client addressed another one.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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

/// Bytes of an IPVS connection entry in a [`RawConn`].
pub const RAW_CONN_LEN: usize = 288;

/// Bytes of each pointer's target in a [`RawConn`].
pub const RAW_POINTEE_LEN: usize = 128;

/// Offsets in `struct ip_vs_conn` where kernels before 5.11 have the pointer to the real server. A [`RawConn`] follows all
/// of them, so that the right one can be proven. They differ by the size of `struct timer_list`.
pub const RAW_POINTERS: [u32; 3] = [184, 216, 224];

/// The raw memory of an IPVS connection entry, to prove a layout by comparison with the kernel's printout of the entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawConn {
    /// Address of the `struct ip_vs_conn`.
    pub conn: u64,
    /// The memory at that address.
    pub bytes: [u8; RAW_CONN_LEN],
    /// The memory that the words at [`RAW_POINTERS`] point to; zeroes if it cannot be read.
    pub pointees: [[u8; RAW_POINTEE_LEN]; RAW_POINTERS.len()],
}
