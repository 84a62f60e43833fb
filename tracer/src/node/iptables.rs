//! Reads the legacy tables of iptables, without making the kernel load, create or change anything.

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
use socket2::{Domain, Socket, Type};

use crate::facts::iptables::{HOOKS, Info, TABLE_NAME, Table, parse};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`, `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
/// Length in bytes of `struct ipt_getinfo`: name, bit set of hooks, two numbers for each hook, count and size of entries.
const INFO: usize = TABLE_NAME + 4 * (1 + 2 * HOOKS + 2);
/// Length in bytes of `struct ipt_get_entries` without the entries: name and size, aligned to 8 bytes.
const ENTRIES_HEAD: usize = TABLE_NAME + 8;
/// Upper limit of a table's size in bytes, so that a wrong number does not allocate all memory.
const MAX_SIZE: usize = 1 << 30;
/// How often reading a table is retried if it changes meanwhile.
const RETRIES: u32 = 8;

/// Reads the legacy tables with these names in the calling thread's network namespace.
///
/// Only existing tables are requested: otherwise the kernel would create them.
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
    // Every socket of the family answers (`net/ipv4/ip_sockglue.c`, `ip_getsockopt`). iptables itself opens a raw one, which
    // needs CAP_NET_RAW.
    let socket = OwnedFd::from(Socket::new(domain, Type::DGRAM, None)?);
    for _ in 0..RETRIES {
        let mut answer = buffer_for(name, INFO);
        get(&socket, level, GET_INFO, &mut answer)?;
        let info = Info::parse(&answer).ok_or_else(|| {
            io::Error::other(format!(
                "the kernel's description of iptables table {name} is truncated"
            ))
        })?;
        let size = usize::try_from(info.size).unwrap_or(usize::MAX);
        if size > MAX_SIZE {
            return Err(io::Error::other(format!("iptables table {name} is too large")));
        }
        let mut answer = buffer_for(name, ENTRIES_HEAD + size);
        answer[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
        match get(&socket, level, GET_ENTRIES, &mut answer) {
            Ok(()) => return Ok(parse(name, is_v6, &info, &answer[ENTRIES_HEAD..])),
            // Its size has changed since.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("iptables table {name} keeps changing")))
}

/// A buffer for an answer, which starts with the table's name.
fn buffer_for(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let end = name.len().min(TABLE_NAME - 1);
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}

/// Passes `answer` to the kernel, which writes its answer there.
fn get(socket: &OwnedFd, level: c_int, option: c_int, answer: &mut [u8]) -> io::Result<()> {
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
    fn reads_the_running_kernel() {
        // Tables need CAP_NET_ADMIN.
        if let Err(error) = tables(&["filter"]) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
