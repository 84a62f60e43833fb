//! Has the kernel hand out the tables. Nothing is loaded, made or changed by it.

#![expect(
    unsafe_code,
    reason = "no library offers getsockopt() with an answer of any length"
)]

use std::{
    ffi::c_int,
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::facts::iptables::{HOOKS, Info, TABLE_NAME, Table, parse};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`, `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
/// `struct ipt_getinfo`: the name, a bit set of hooks, two numbers for each of them, count and length of the entries.
const INFO: usize = TABLE_NAME + 4 * (1 + 2 * HOOKS + 2);
/// `struct ipt_get_entries`: the name, the length, aligned to 8 bytes; then the entries.
const ENTRIES_HEAD: usize = TABLE_NAME + 8;
/// More than any real table has. The kernel's number is not to make us ask for all memory.
const MOST: usize = 1 << 30;
/// How often a table that changes while it is asked for is asked for again.
const RETRIES: u32 = 8;

/// The legacy tables of the calling thread's network namespace that have one of these names.
///
/// Only those that exist are asked for: asking for another one would make the kernel set it up.
pub fn tables(wanted: &[&str]) -> io::Result<Vec<Table>> {
    let mut out = Vec::new();
    for (is_v6, list) in [(false, "ip_tables_names"), (true, "ip6_tables_names")] {
        let names = match fs::read_to_string(format!("/proc/thread-self/net/{list}")) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for name in names.lines().filter(|name| wanted.contains(name)) {
            out.extend(table(name, is_v6)?);
        }
    }
    Ok(out)
}

fn table(name: &str, is_v6: bool) -> io::Result<Option<Table>> {
    let (domain, level) = if is_v6 {
        (Domain::IPV6, libc::SOL_IPV6)
    } else {
        (Domain::IPV4, libc::SOL_IP)
    };
    // IPPROTO_RAW, as iptables itself does.
    let socket = OwnedFd::from(Socket::new(
        domain,
        Type::RAW,
        Some(Protocol::from(libc::IPPROTO_RAW)),
    )?);
    for _ in 0..RETRIES {
        let mut answer = named(name, INFO);
        ask(&socket, level, GET_INFO, &mut answer)?;
        let info =
            Info::parse(&answer).ok_or_else(|| io::Error::other("the kernel told too little of a table"))?;
        let size = usize::try_from(info.size).unwrap_or(usize::MAX);
        if size > MOST {
            return Err(io::Error::other("a table is too large"));
        }
        let mut answer = named(name, ENTRIES_HEAD + size);
        answer[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
        match ask(&socket, level, GET_ENTRIES, &mut answer) {
            Ok(()) => return Ok(parse(name, is_v6, &info, &answer[ENTRIES_HEAD..])),
            // Its length is another one by now.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(
        "a table changes faster than the kernel tells it",
    ))
}

/// Room for an answer, with the table's name in front.
fn named(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let end = name.len().min(TABLE_NAME - 1);
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}

/// Asks with what is in `answer`, and puts the kernel's answer there.
fn ask(socket: &OwnedFd, level: c_int, option: c_int, answer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(answer.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes at most `length` bytes of `answer`, which is that long, and `length` itself.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            answer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_the_running_kernel() {
        // Raw sockets need CAP_NET_RAW, tables CAP_NET_ADMIN.
        if let Err(error) = tables(&["filter"]) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
