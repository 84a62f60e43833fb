//! Finds the listener of a TCP port and the process that holds it.
//!
//! Read from `/proc/net/tcp`: querying sockets by netlink would make the kernel load `tcp_diag`.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::facts::{port::Process, tcp_socket::TcpSocket};

/// How long the search for a connection, and for a holder of a socket other than kube-proxy, may take. A busy node has a
/// million connections.
const SEARCH_TIME: Duration = Duration::from_millis(100);
/// How long kube-proxy's sockets are remembered, and the share of the time that reading them may take: 1/10.
const MAX_AGE: Duration = Duration::from_secs(1);
const SHARE: u32 = 10;

/// The files with the sockets of the calling thread's network namespace that may have this address. In each file, listeners
/// come first.
fn files(of: SocketAddr) -> io::Result<Vec<impl Iterator<Item = TcpSocket>>> {
    // An IPv6 socket of all addresses gets IPv4 connections too.
    let names: &[&str] = if of.is_ipv4() { &["tcp", "tcp6"] } else { &["tcp6"] };
    let mut files = Vec::new();
    for name in names {
        match File::open(format!("/proc/thread-self/net/{name}")) {
            Ok(file) => {
                let lines = BufReader::with_capacity(1 << 16, file).lines();
                files.push(
                    lines
                        .map_while(Result::ok)
                        .filter_map(|line| TcpSocket::parse(&line)),
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// The inode number of the socket that listens on this address in the calling thread's network namespace; `None` if there is
/// none.
pub(super) fn listener(at: SocketAddr) -> io::Result<Option<u32>> {
    let is_it = |socket: &TcpSocket| {
        let ip = socket.local.ip();
        socket.local.port() == at.port() && (ip == at.ip() || ip.is_unspecified())
    };
    let listeners = files(at)?
        .into_iter()
        .flat_map(|file| file.take_while(TcpSocket::is_listener));
    // A socket of this very address comes before one of all addresses.
    let best = listeners
        .filter(is_it)
        .min_by_key(|socket| socket.local.ip() != at.ip());
    Ok(best.map(|socket| socket.inode))
}

/// Whether the connection from `client` to `node` exists and no process has accepted it. `false` if it was not found in time.
pub(super) fn is_unaccepted(node: SocketAddr, client: SocketAddr) -> bool {
    let begun = Instant::now();
    let is_it = |socket: TcpSocket| (socket.local, socket.remote) == (node, client) && socket.is_unaccepted();
    let sockets = files(node).into_iter().flatten().flatten();
    sockets.take_while(|_| begun.elapsed() < SEARCH_TIME).any(is_it)
}

/// Finds the processes that hold sockets.
#[derive(Debug, Default)]
pub(super) struct Owners {
    kube_proxy: Option<KubeProxy>,
}

/// The sockets of kube-proxy, which before 1.24 holds one for each NodePort.
#[derive(Debug)]
struct KubeProxy {
    read: Instant,
    /// How long reading took.
    cost: Duration,
    /// By inode number.
    sockets: HashMap<u32, Process>,
}

impl Owners {
    /// The process that holds the socket with this inode number; `None` if it was not found in time. A search of kube-proxy's
    /// own sockets has no time limit.
    pub(super) fn find(&mut self, inode: u32) -> Option<Process> {
        let known = self.kube_proxy.as_ref();
        let held = known.and_then(|known| Some((known.read, known.sockets.get(&inode)?.clone())));
        if let Some((read, owner)) = held
            && read.elapsed() < MAX_AGE
        {
            return Some(owner);
        }
        let is_due = known.is_none_or(|known| known.read.elapsed() > MAX_AGE.max(known.cost * SHARE));
        if is_due {
            let kube_proxy = KubeProxy::read();
            let owner = kube_proxy.sockets.get(&inode).cloned();
            self.kube_proxy = Some(kube_proxy);
            if owner.is_some() {
                return owner;
            }
        }
        let begun = Instant::now();
        let mut others = pids().take_while(|_| begun.elapsed() < SEARCH_TIME);
        let pid = others.find(|&pid| sockets_of(pid).any(|socket| socket == inode))?;
        process(pid)
    }
}

impl KubeProxy {
    fn read() -> Self {
        let read = Instant::now();
        let processes = pids().filter_map(process).filter(|process| process.is_kube_proxy);
        let sockets =
            processes.flat_map(|process| sockets_of(process.pid).map(move |inode| (inode, process.clone())));
        let sockets = sockets.collect();
        Self {
            read,
            cost: read.elapsed(),
            sockets,
        }
    }
}

/// The processes of the node.
fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
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

/// The inode numbers of the sockets that a process holds.
fn sockets_of(pid: u32) -> impl Iterator<Item = u32> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = folder.into_iter().flatten().flatten();
    descriptors.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    })
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
        let mut owners = Owners::default();
        let owner = owners.find(inode).expect("this process");
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
