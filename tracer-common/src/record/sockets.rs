//! Sockets that a packet met.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The socket that took or refused the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
