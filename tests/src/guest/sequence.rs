//! The sequence number with which a socket begins its connection.
//!
//! The kernel chooses it by itself and tells nobody, but lets those who restore a connection from elsewhere say it
//! (`TCP_REPAIR`). A socket that is in repair only until it has its number connects as any other does.

use anyhow::{Context, Result};
use libc::c_int;
use nix::setsockopt_impl;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetStruct;
use socket2::Socket;

/// `TCP_SEND_QUEUE` (`include/uapi/linux/tcp.h`).
const SEND_QUEUE: c_int = 2;

#[derive(Debug, Clone)]
struct Repair;
#[derive(Debug, Clone)]
struct RepairQueue;
#[derive(Debug, Clone)]
struct QueueSequence;

setsockopt_impl!(
    Repair,
    libc::IPPROTO_TCP,
    libc::TCP_REPAIR,
    c_int,
    SetStruct<'_, c_int>
);
setsockopt_impl!(
    RepairQueue,
    libc::IPPROTO_TCP,
    libc::TCP_REPAIR_QUEUE,
    c_int,
    SetStruct<'_, c_int>
);
setsockopt_impl!(
    QueueSequence,
    libc::IPPROTO_TCP,
    libc::TCP_QUEUE_SEQ,
    c_int,
    SetStruct<'_, c_int>
);

/// Has the socket's SYN begin with this number. It must not be connected yet, and forgets that it shares its port.
pub(super) fn set(socket: &Socket, number: u32) -> Result<()> {
    setsockopt(socket, Repair, &1)
        .and_then(|()| setsockopt(socket, RepairQueue, &SEND_QUEUE))
        .and_then(|()| setsockopt(socket, QueueSequence, &number.cast_signed()))
        .and_then(|()| setsockopt(socket, Repair, &0))
        .with_context(|| format!("cannot have a connection begin with the sequence number {number}"))
}
