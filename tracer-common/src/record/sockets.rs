//! Sockets that a packet reached.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The socket that accepted or refused the packet.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Socket {
    /// Address of the `struct sock`; 0 if there is none.
    pub sock: u64,
    /// Connections in the accept queue; `u32::MAX` if it could not be read.
    pub ack_backlog: u32,
    /// Limit of the accept queue; `u32::MAX` if it could not be read.
    pub max_ack_backlog: u32,
}

/// A connection that a socket of the node opened, where IPVS handles the SYN-ACK as a client's request.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OwnConnection {
    /// When `tcp_connect` sent its SYN, nanoseconds of `CLOCK_MONOTONIC`. The SYN-ACK acknowledges that SYN's sequence number.
    pub opened_ns: u64,
}

/// A listening socket when it receives a SYN (`tcp_conn_request`). `u32::MAX` means that a value could not be read.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Listener {
    /// Address of the `struct sock`.
    pub sock: u64,
    /// Connections in the accept queue.
    pub ack_backlog: u32,
    /// Limit of the accept queue: the smaller of the backlog given to `listen()` and `somaxconn`. The kernel allows one more.
    pub max_ack_backlog: u32,
    /// Connections in the SYN queue, waiting for the client's ACK.
    pub syn_queue: u32,
    /// `net.ipv4.tcp_max_syn_backlog` of the socket's network namespace.
    pub max_syn_backlog: u32,
    /// `net.ipv4.tcp_syncookies` of the socket's network namespace.
    pub syncookies: u32,
    /// Not 0 if the application set `TCP_DEFER_ACCEPT`: then the handshake completes with the first data.
    pub defer_accept: u32,
}

/// Upper limit of the length of TCP options, bytes.
pub const OPTIONS_LEN: usize = 40;

/// The `TIME_WAIT` socket of an earlier connection that a SYN matched, and the SYN's options.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TimeWait {
    /// Address of the `struct tcp_timewait_sock`.
    pub sock: u64,
    /// The members below that were read: bits of [`time_wait`].
    pub have: u32,
    /// The sequence number that the old connection expected next.
    pub rcv_nxt: u32,
    /// The last timestamp of the old connection's client (RFC 7323 `TS.Recent`).
    pub ts_recent: u32,
    /// The time of that timestamp, in seconds since boot; 0 if the old connection had no timestamps.
    pub ts_recent_stamp: i32,
    /// TCP state of the socket: [`time_wait::FIN_WAIT2`] or [`time_wait::TIME_WAIT`].
    pub substate: u32,
    /// Length of the SYN's options, bytes.
    pub options_len: u32,
    /// The SYN's TCP options, with undefined bytes after their length.
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

    /// `TCP_TW_SUCCESS` (`enum tcp_tw_status`, `include/net/tcp.h`, values unchanged from 3.10 to 7.3): no answer.
    pub const SUCCESS: i32 = 0;
    /// `TCP_TW_RST`: answer with RST.
    pub const RST: i32 = 1;
    /// `TCP_TW_ACK`: answer with ACK.
    pub const ACK: i32 = 2;
    /// `TCP_TW_SYN`: hand the SYN to a listener.
    pub const SYN: i32 = 3;
    /// `TCP_TW_ACK_OOW` (7.x): answer a segment outside the window with ACK.
    pub const ACK_OOW: i32 = 4;
}
