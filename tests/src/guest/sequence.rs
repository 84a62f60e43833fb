//! Sets the initial sequence number of a socket's connection.
//!
//! The kernel chooses it and does not reveal it, but lets a process that restores a connection set it
//! (`TCP_REPAIR`). A socket that is in repair mode only until it has its number then connects normally.

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

/// Sets the sequence number of the socket's SYN. The socket must not be connected yet, and loses
/// `SO_REUSEADDR`.
pub(super) fn set(socket: &Socket, number: u32) -> Result<()> {
    setsockopt(socket, Repair, &1)
        .and_then(|()| setsockopt(socket, RepairQueue, &SEND_QUEUE))
        .and_then(|()| setsockopt(socket, QueueSequence, &number.cast_signed()))
        .and_then(|()| setsockopt(socket, Repair, &0))
        .with_context(|| format!("cannot set the initial sequence number {number}"))
}
