//! Clients: real TCP from chosen source ports, and the ground truth of what they experienced.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::cancel::Cancel;
use super::extension;
use super::netns::Netns;
use super::port::Port;
use super::{segment, sequence, strays, tool};
use crate::protocol::{Message, Outcome, Traffic};
use crate::scenario::{self, Close, Connect, HalfOpen, address};

/// How long the last connection may still occupy a source port. Its server closed it, so it needs one more
/// round trip at most.
const PORT_BUSY: Duration = Duration::from_secs(3);

/// How often a client that waits for its connection checks whether it must stop.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The time between two SYNs of a client without a TCP: TCP's initial retransmission timeout.
const BETWEEN_SYNS: Duration = Duration::from_secs(1);

/// How long a server may take for its few bytes.
const REPLY_LIMIT: Duration = Duration::from_secs(5);

/// A client of the node.
#[derive(Debug, Clone)]
pub(super) struct Client {
    name: String,
    address: IpAddr,
    netns: Netns,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Client {
    /// Builds the netns of a client outside the cluster and its link to the node; `nth` counts clients from
    /// 0.
    pub(super) fn create(client: &scenario::Client, nth: usize, node: IpAddr) -> Result<Self> {
        let address = client.address;
        let netns = Netns::create(&client.name, address)?;
        let (device, name) = (device(nth), &client.name);
        let bits = address::bits(address);
        // One address towards all clients, as on a node with a single uplink. For IPv6, only the device that
        // has the address answers neighbour solicitations.
        let uplink = if nth == 0 || node.is_ipv6() {
            format!("addr add {} dev {device}\n", address::of_device(node, bits))
        } else {
            String::new()
        };
        tool::run_with_input(
            "ip -batch -",
            &format!(
                "link add {device} type veth peer name eth0 netns {name}\n\
                 {uplink}\
                 link set {device} up\n\
                 route add {address}/{bits} dev {device} src {node}\n"
            ),
        )?;
        let own = address::of_device(address, address::prefix(address));
        netns.ip(&format!(
            "addr add {own} dev eth0\nlink set eth0 up\nroute add default via {node}\n"
        ))?;
        Ok(Self::at(&client.name, address, &netns))
    }

    /// Makes an existing netns a client.
    pub(super) fn at(name: &str, address: IpAddr, netns: &Netns) -> Self {
        Self {
            name: name.to_owned(),
            address,
            netns: netns.clone(),
            held: Arc::default(),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its netns.
    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Makes all attempts of a step, `at_once` ports at a time, and reports each outcome to the host. Signals
    /// `first_syn` as soon as the first SYN is on its way.
    pub(super) fn connect(
        &self,
        step: &Connect,
        to: SocketAddr,
        first_syn: &Sender<()>,
        port: &Port,
        cancel: &Cancel,
    ) -> Result<()> {
        let pause = Duration::from_millis(step.pause_ms.into());
        if step.half_open.is_some() {
            self.netns.run(|| drop_answers(step))?;
        }
        let ports = Mutex::new(step.ports());
        let next = || ports.lock().unwrap_or_else(PoisonError::into_inner).next();
        let connect_from = |source_port| {
            let truth = match &step.half_open {
                None => self.attempt(source_port, to, step, first_syn, (port, cancel))?,
                Some(syn) => self.half_open(source_port, to, syn, first_syn, cancel)?,
            };
            port.send(&Message::Traffic(truth));
            cancel.sleep(pause)
        };
        let worker = || {
            let netns = match step.from_node_port {
                Some(_) => &Netns::node(),
                None => &self.netns,
            };
            netns.run(|| {
                while let Some(source_port) = next() {
                    (0..step.times).try_for_each(|_| connect_from(source_port))?;
                }
                Ok(())
            })
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..step.at_once).map(|_| scope.spawn(worker)).collect();
            let panicked = |_| Err(anyhow!("{} panicked", self.name));
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(panicked))
        })
    }

    /// Sends a line on each connection that it holds.
    pub(super) fn send_on_held(&self) -> Result<()> {
        self.lock().iter_mut().try_for_each(|stream| {
            stream
                .write_all(b"and another thing\n")
                .with_context(|| format!("{} lost a connection that it held", self.name))
        })
    }

    /// Sends packets that look like SYNs but are not.
    pub(super) fn send_strays(&self, source_port: u16, to: SocketAddr) -> Result<()> {
        let from = SocketAddr::new(self.address, source_port);
        self.netns.run(|| strays::send(from, to))
    }

    /// Connects from any port and closes at once.
    pub(super) fn connect_briefly(&self, to: SocketAddr) -> Result<()> {
        self.netns.run(|| {
            let mut pod = TcpStream::connect_timeout(&to, REPLY_LIMIT)
                .with_context(|| format!("cannot connect to {to}"))?;
            // Kernels before 6.3 may miss a handshake's ACK while a FIN right behind it is processed on
            // another CPU.
            pod.set_read_timeout(Some(REPLY_LIMIT))?;
            pod.read_exact(&mut [0])
                .with_context(|| format!("{to} sent nothing"))
        })
    }

    /// Closes the held connections.
    pub(super) fn close_held(&self) {
        self.lock().clear();
    }

    fn attempt(
        &self,
        source_port: u16,
        to: SocketAddr,
        step: &Connect,
        first_syn: &Sender<()>,
        (port, cancel): (&Port, &Cancel),
    ) -> Result<Traffic> {
        let own = SocketAddr::new(self.address, source_port);
        let (from, peer) = match step.from_node_port {
            Some(_) => (to, own),
            None => (own, to),
        };
        let socket = self.socket(from, step)?;
        let (result, took) = connect(&socket, peer, step, first_syn, cancel)?;
        let outcome = match &result {
            Ok(()) => Outcome::Connected,
            Err(error) if error.kind() == ErrorKind::Interrupted => Outcome::Aborted,
            Err(error) => outcome(error),
        };
        if let (Outcome::Failed, Err(error)) = (outcome, &result) {
            port.note(format!("{}: {from} to {peer}: {error}", self.name));
        }
        let (mut backend, mut answer_ms) = (None, None);
        if result.is_ok() {
            let connected = Instant::now();
            if step.close == Some(Close::Rst) {
                socket
                    .set_linger(Some(Duration::ZERO))
                    .context("cannot set SO_LINGER")?;
            }
            let stream = TcpStream::from(socket);
            if let Some((name, first_byte)) = greeting(&stream, step.hold || step.close.is_some()) {
                backend = Some(name);
                answer_ms = Some(first_byte.saturating_duration_since(connected).as_secs_f64() * 1000.0);
            }
            if step.hold {
                self.lock().push(stream);
            }
        }
        Ok(Traffic {
            client: self.name.clone(),
            source_port,
            to,
            outcome,
            ms: took.as_secs_f64() * 1000.0,
            answer_ms,
            backend,
        })
    }

    fn socket(&self, from: SocketAddr, step: &Connect) -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP))
            .context("cannot create a socket")?;
        if let Some(number) = step.sequence {
            sequence::set(&socket, number)?;
        }
        socket
            .set_reuse_address(true)
            .context("cannot set SO_REUSEADDR")?;
        extension::add(&socket, &step.extension_headers)?;
        if let Some(ttl) = step.ttl {
            let set = if from.is_ipv4() {
                socket.set_ttl_v4(ttl.into())
            } else {
                socket.set_unicast_hops_v6(ttl.into())
            };
            set.context("cannot set the TTL")?;
        }
        if let Some(mss) = step.mss {
            socket.set_tcp_mss(mss.into()).context("cannot set the MSS")?;
        }
        socket
            .bind(&from.into())
            .with_context(|| format!("{}: cannot bind {from}", self.name))?;
        Ok(socket)
    }

    /// Sends SYNs and nothing else.
    fn half_open(
        &self,
        source_port: u16,
        to: SocketAddr,
        syn: &HalfOpen,
        first_syn: &Sender<()>,
        cancel: &Cancel,
    ) -> Result<Traffic> {
        let start = Instant::now();
        let from = SocketAddr::new(self.address, source_port);
        for nth in 0..syn.syns {
            if nth > 0 {
                cancel.sleep(BETWEEN_SYNS)?;
            }
            segment::send_syn(from, to, syn)?;
            let _ = first_syn.send(());
        }
        Ok(Traffic {
            client: self.name.clone(),
            source_port,
            to,
            outcome: Outcome::Silent,
            ms: start.elapsed().as_secs_f64() * 1000.0,
            answer_ms: None,
            backend: None,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's end of the link to its `nth` client or other node.
pub(super) fn device(nth: usize) -> String {
    format!("eth{nth}")
}

/// Drops the answers to a step's ports in the calling thread's netns: its TCP would answer them with RST.
fn drop_answers(step: &Connect) -> Result<()> {
    let first = step.source_port;
    let last = first.saturating_add(step.count - 1);
    tool::run_with_input(
        "nft -f -",
        &format!(
            "table inet lab-client {{\n    chain deaf {{\n        type filter hook input priority filter\n        \
             tcp dport {first}-{last} drop\n    }}\n}}\n"
        ),
    )?;
    Ok(())
}

/// Connects, and retries while the last connection still occupies the port. That wait is not counted: the
/// kernel fails the call before any packet.
fn connect(
    socket: &Socket,
    to: SocketAddr,
    step: &Connect,
    first_syn: &Sender<()>,
    cancel: &Cancel,
) -> Result<(io::Result<()>, Duration)> {
    let to = to.into();
    socket
        .set_nonblocking(true)
        .context("cannot make a socket non-blocking")?;
    let first = Instant::now();
    loop {
        let start = Instant::now();
        let result = match socket.connect(&to) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && first.elapsed() < PORT_BUSY => {
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {
                let _ = first_syn.send(());
                handshake(socket, start, step, cancel)?
            }
            result => result,
        };
        return Ok((result, start.elapsed()));
    }
}

/// Waits until a pending connection is established or has failed, or the client's timeout has passed. Fails
/// if the scenario must stop.
fn handshake(socket: &Socket, start: Instant, step: &Connect, cancel: &Cancel) -> Result<io::Result<()>> {
    let (limit, then) = match step.abort_ms {
        Some(limit) if limit < step.timeout_ms => (limit, ErrorKind::Interrupted),
        _ => (step.timeout_ms, ErrorKind::TimedOut),
    };
    let limit = Duration::from_millis(limit.into());
    loop {
        cancel.check_cancelled()?;
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(Err(then.into()));
        }
        // Rounded up, so that the last wait is never zero.
        let wait = PollTimeout::try_from(left.min(POLL_INTERVAL) + Duration::from_millis(1))
            .unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut ready, wait) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                return Ok(socket
                    .take_error()
                    .and_then(|error| error.filter(is_handshake_error).map_or(Ok(()), Err)));
            }
            Err(errno) => return Ok(Err(errno.into())),
        }
    }
}

/// Whether the error is the outcome of the handshake. A connection that was reset before its client checked
/// it was established nevertheless.
fn is_handshake_error(error: &io::Error) -> bool {
    // BrokenPipe: the server had closed the connection before the reset.
    !matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn outcome(error: &io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::TimedOut => Outcome::Timeout,
        ErrorKind::ConnectionRefused => Outcome::Refused,
        // IPv6 reports a prohibit route as EACCES; IPv4 reports it as host unreachable.
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied => {
            Outcome::Unreachable
        }
        _ if error.raw_os_error() == Some(Errno::ENOPROTOOPT as i32) => Outcome::Unreachable,
        _ => Outcome::Failed,
    }
}

/// The server's answer up to the end of its first line, and when its first byte arrived. Unless the first
/// line is enough, all of it is read, so that the server closes first and the client's port is free at once.
fn greeting(mut stream: &TcpStream, first_line: bool) -> Option<(String, Instant)> {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(REPLY_LIMIT));
    let mut received = Vec::new();
    let mut bytes = [0; 64];
    let mut first_byte = None;
    // A RST ends it as well as a FIN does.
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        first_byte.get_or_insert_with(Instant::now);
        received.extend_from_slice(&bytes[..count]);
        if first_line && received.contains(&b'\n') {
            break;
        }
    }
    let name = received.split(|byte| *byte == b'\n').next()?;
    let name = (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())?;
    Some((name, first_byte?))
}
