//! Finds the listener of a TCP port and the process that holds it.
//!
//! Read from `/proc/net/tcp`: querying sockets by netlink would make the kernel load `tcp_diag`.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::facts::{port::Process, tcp_socket::TcpSocket};

/// How long the search for a connection and for the holder of a socket may take. A busy node has a million connections.
const SEARCH_TIME: Duration = Duration::from_millis(100);

/// The sockets of the calling thread's network namespace that may have this address, listeners first.
fn sockets(of: SocketAddr) -> io::Result<impl Iterator<Item = TcpSocket>> {
    // An IPv6 socket of all addresses gets IPv4 connections too.
    let files: &[&str] = if of.is_ipv4() { &["tcp", "tcp6"] } else { &["tcp6"] };
    let mut open = Vec::new();
    for file in files {
        match File::open(format!("/proc/thread-self/net/{file}")) {
            Ok(file) => open.push(BufReader::with_capacity(1 << 16, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let lines = open.into_iter().map(|file| file.lines().map_while(Result::ok));
    Ok(lines.flat_map(|lines| lines.filter_map(|line| TcpSocket::parse(&line))))
}

/// The inode number of the socket that listens on this address in the calling thread's network namespace; `None` if there is
/// none.
pub(super) fn listener(at: SocketAddr) -> io::Result<Option<u32>> {
    let begun = Instant::now();
    let is_it = |socket: &TcpSocket| {
        let ip = socket.local.ip();
        socket.is_listener() && socket.local.port() == at.port() && (ip == at.ip() || ip.is_unspecified())
    };
    let found = sockets(at)?
        .take_while(|_| begun.elapsed() < SEARCH_TIME)
        .filter(is_it);
    // A socket of this very address comes before one of all addresses.
    let best = found.min_by_key(|socket| socket.local.ip() != at.ip());
    Ok(best.map(|socket| socket.inode))
}

/// Whether the connection from `client` to `node` exists and no process has accepted it. `false` if it was not found in time.
pub(super) fn is_unaccepted(node: SocketAddr, client: SocketAddr) -> bool {
    let begun = Instant::now();
    let is_it = |socket: TcpSocket| (socket.local, socket.remote) == (node, client) && socket.is_unaccepted();
    sockets(node).is_ok_and(|sockets| sockets.take_while(|_| begun.elapsed() < SEARCH_TIME).any(is_it))
}

/// The process that holds the socket with this inode number; `None` if it was not found in time. kube-proxy is looked at first.
pub(super) fn owner(inode: u32) -> Option<Process> {
    let begun = Instant::now();
    let link = format!("socket:[{inode}]");
    let mut processes: Vec<Process> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    processes.sort_by_key(|process| !process.is_kube_proxy);
    processes
        .into_iter()
        .take_while(|_| begun.elapsed() < SEARCH_TIME)
        .find(|process| holds(process.pid, &link))
}

fn process(pid: u32) -> Option<Process> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"))
        .ok()?
        .trim()
        .to_owned();
    let is_kube_proxy = name == KUBE_PROXY || name == HYPERKUBE && runs_kube_proxy(pid);
    Some(Process {
        pid,
        name,
        is_kube_proxy,
    })
}

/// The program's name, and that of the program that contained all others in older releases.
const KUBE_PROXY: &str = "kube-proxy";
const HYPERKUBE: &str = "hyperkube";

/// Whether hyperkube was started as kube-proxy: `hyperkube kube-proxy …`, or `hyperkube proxy …`.
fn runs_kube_proxy(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = line.split(|&byte| byte == 0).nth(1);
    first.is_some_and(|first| first == KUBE_PROXY.as_bytes() || first == b"proxy")
}

fn holds(pid: u32, link: &str) -> bool {
    let folder = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut descriptors = folder.into_iter().flatten().flatten();
    descriptors.any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(link)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn finds_a_listener_and_its_owner() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let inode = listener(at).unwrap().expect("a listener");
        let owner = owner(inode).expect("this process");
        assert_eq!(owner.pid, std::process::id());
        assert!(!owner.is_kube_proxy);
        drop(socket);
        assert_eq!(listener(at).unwrap(), None);
    }

    #[test]
    fn an_ipv6_socket_of_all_addresses_listens_for_ipv4_too() {
        let Ok(socket) = TcpListener::bind("[::]:0") else {
            return;
        };
        let at = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().unwrap().port()));
        assert!(listener(at).unwrap().is_some());
    }

    #[test]
    fn a_connection_is_unaccepted_until_it_is_accepted() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = socket.local_addr().unwrap();
        let client = TcpStream::connect(node).unwrap();
        let from = client.local_addr().unwrap();
        assert!(is_unaccepted(node, from));
        let _accepted = socket.accept().unwrap();
        assert!(!is_unaccepted(node, from));
        assert!(!is_unaccepted(node, SocketAddr::from(([127, 0, 0, 1], 1))));
    }
}
