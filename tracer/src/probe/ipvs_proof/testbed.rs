//! Makes the samples for the proof: virtual services and connections with known properties, in a private network
//! namespace that ends with its thread.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};
use tracer_common::proof;

use super::{
    control::{Control, Forward, Service, add_address, loopback_up},
    layout::{Flags, Known, Pointee, Sample, has_client},
};
use crate::{
    facts::ipvs::{self, TcpState},
    node::{self, netns},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bits of `ip_vs_conn.flags`, the same on all kernels (`IP_VS_CONN_F_*`).
const FORWARD_MASK: u32 = 3;
const INACTIVE: u32 = 0x100;
const NFCT: u32 = 0x1_0000;

/// How long a connection may take. The traffic never leaves the machine, but an emulated one can be slow.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The memory of a connection, as read by a probe on the function that prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Address of the connection, which identifies it.
    pub pointer: u64,
    /// The connection (`struct ip_vs_conn`), from its start.
    pub conn: Vec<u8>,
    /// The targets of the words at the candidate offsets of [`Field::Dest`](super::Field::Dest), as far as they can be
    /// read.
    pub pointees: Vec<Pointee>,
}

/// A probe on `ip_vs_conn_seq_show(seq, v)`.
///
/// The kernel calls that function with `v` = 1 for the heading, and with each connection. On many kernels these include
/// the connections of other network namespaces. The addresses of the proof's own have its tag ([`proof`]).
pub trait ConnProbe: Send {
    /// Starts recording the connections with this tag that the kernel prints.
    fn start(&mut self, tag: u16) -> io::Result<()>;
    /// The records since the last call.
    fn records(&mut self) -> io::Result<Vec<Record>>;
}

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub enum TestbedError {
    /// A step of setting up or running the testbed failed.
    #[error("cannot {what}")]
    Step {
        /// The step.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// IPVS lists none of the connections.
    #[error("IPVS lists none of the test connections")]
    NotListed,
    /// IPVS lists a connection with another real server.
    #[error("IPVS lists the connection from {client} with a real server other than {real_server}")]
    WrongRealServer {
        /// The client.
        client: SocketAddr,
        /// The expected real server.
        real_server: SocketAddr,
    },
    /// The probe saw no connection, or several, with this client at the offsets common to all known kernels.
    #[error("the probe saw {count} connections with client {client} at the known offsets")]
    NotSeen {
        /// The client.
        client: SocketAddr,
        /// Number of matching connections.
        count: usize,
    },
    /// IPVS lists a connection in an unknown state.
    #[error("IPVS lists a connection in the unknown state `{0}`")]
    State(String),
}

fn step(what: &'static str) -> impl Fn(io::Error) -> TestbedError {
    move |source| TestbedError::Step { what, source }
}

/// Makes connections through IPVS in a network namespace of their own, and reads the memory of each as the kernel prints
/// it, before and after its real server changes.
///
/// IPVS and `scheduler` must be loaded or built in, otherwise the kernel would load them. Nothing remains afterwards.
pub fn collect_samples(scheduler: &str, probe: &mut dyn ConnProbe) -> Result<Vec<Sample>, TestbedError> {
    netns::on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| step("make a network namespace")(errno.into()))
            .and_then(|()| {
                // No other namespace has its inode number now, so the tag differs from those of proofs that other tracers
                // on this machine make at the same time.
                let netns = netns::current().map_err(step("identify a network namespace"))?;
                let tag = (netns & 0xffff) as u16;
                probe.start(tag).map_err(step("start the probe"))?;
                Testbed::set_up(scheduler, tag)?.run(probe)
            })
    })
    .map_err(step("start a thread"))?
}

/// Services and connections in the network namespace. It ends when the sockets are dropped.
struct Testbed {
    tag: u16,
    control: Control,
    services: Vec<TestService>,
    connections: Vec<Conn>,
    sockets: Vec<Socket>,
    /// Whether new connections get `IP_VS_CONN_F_NFCT`; `None` where that cannot be set.
    conntrack: Option<bool>,
}

/// A virtual service, and whether its real server is still part of it.
struct TestService {
    service: Service,
    available: bool,
}

/// A connection through the service with this index.
struct Conn {
    service: usize,
    client: SocketAddr,
    conntrack: Option<bool>,
}

/// Indices of the services.
const ANSWERING: usize = 0;
const REFUSING: usize = 1;
const SILENT: usize = 2;
const ROUTED: usize = 3;
const DATAGRAM: usize = 4;
const SIX: usize = 5;

impl Testbed {
    fn set_up(scheduler: &str, tag: u16) -> Result<Self, TestbedError> {
        loopback_up().map_err(step("bring the loopback device up"))?;
        let mut stage = Self {
            tag,
            control: Control::open().map_err(step("talk to IPVS"))?,
            services: Vec::new(),
            connections: Vec::new(),
            sockets: Vec::new(),
            conntrack: None,
        };
        stage.set_conntrack(false);
        for service in stage.listen().map_err(step("listen"))? {
            stage
                .control
                .add_service(&service, scheduler)
                .map_err(step("add a virtual service"))?;
            stage
                .control
                .add_real_server(&service)
                .map_err(step("add a real server"))?;
            stage.services.push(TestService {
                service,
                available: true,
            });
        }
        Ok(stage)
    }

    /// Starts the real servers. All weights, ports and addresses differ from each other and from common values.
    fn listen(&mut self) -> io::Result<Vec<Service>> {
        let answering = self.bind(Type::STREAM, self.local(161, 0), Some(16))?;
        // Bound, but not listening: connections are refused, and no other socket can use the port.
        let refusing = self.bind(Type::STREAM, self.local(178, 0), None)?;
        let silent = self.bind(Type::STREAM, self.local(197, 0), Some(1))?;
        // Two connections that bypass IPVS fill the accept queue of this listener; it drops further SYNs.
        for _ in 0..2 {
            self.bind(Type::STREAM, self.local(83, 0), None)?;
            if let Some(filler) = self.sockets.last() {
                filler.connect_timeout(&silent.into(), TIMEOUT)?;
            }
        }
        // Routed packets keep the service's address, so the listener has that one.
        let routed = self.bind(Type::STREAM, self.local(34, 30_117), Some(16))?;
        let datagram = self.bind(Type::DGRAM, self.local(211, 0), None)?;
        let service = |protocol, address, real_server, weight| Service {
            protocol,
            address,
            real_server,
            forward: Forward::Masquerade,
            weight,
            limit: 0,
        };
        let mut services = vec![
            service(TCP, self.local(31, 30_083), answering, 4129),
            service(TCP, self.local(32, 31_255), refusing, 12_347),
            Service {
                limit: 1,
                ..service(TCP, self.local(33, 30_809), silent, 771)
            },
            Service {
                forward: Forward::Route,
                ..service(TCP, routed, self.local(222, 30_117), 65_537)
            },
            service(UDP, self.local(35, 32_001), datagram, 95),
        ];
        // Without IPv6 only the address families stay unproven.
        if let Ok(real_server) = self.listen_on_ipv6() {
            services.push(service(TCP, self.local6(36, 30_666), real_server, 1021));
        }
        Ok(services)
    }

    /// Adds the IPv6 addresses and starts the real server on one of them.
    fn listen_on_ipv6(&mut self) -> io::Result<SocketAddr> {
        for role in [36, 83, 161] {
            add_address(ipv6(role, self.tag))?;
        }
        self.bind(Type::STREAM, self.local6(161, 0), Some(16))
    }

    fn run(mut self, probe: &mut dyn ConnProbe) -> Result<Vec<Sample>, TestbedError> {
        let connect = step("connect through IPVS");
        for index in [ANSWERING, REFUSING, SILENT, ROUTED, DATAGRAM, SIX] {
            self.connect(index).map_err(&connect)?;
        }
        self.connect(ANSWERING).map_err(&connect)?;
        let half_closed = self
            .sockets
            .last()
            .map_or(Ok(()), |socket| socket.shutdown(Shutdown::Write));
        half_closed.map_err(step("close a connection"))?;
        let mut samples = self.take_samples(probe)?;

        self.set_conntrack(true);
        for (index, weight) in [(ANSWERING, 60_013), (REFUSING, 0)] {
            self.connect(index).map_err(&connect)?;
            self.services[index].service.weight = weight;
            let changed = self.control.change_real_server(&self.services[index].service);
            changed.map_err(step("change a real server's weight"))?;
        }
        samples.extend(self.take_samples(probe)?);

        for index in [ANSWERING, ROUTED] {
            self.services[index].available = false;
            let removed = self.control.remove_real_server(&self.services[index].service);
            removed.map_err(step("remove a real server"))?;
        }
        samples.extend(self.take_samples(probe)?);
        Ok(samples)
    }

    /// Opens a connection through a service, and leaves it in the state that its real server leads to.
    fn connect(&mut self, index: usize) -> io::Result<()> {
        let Some(TestService { service, .. }) = self.services.get(index) else {
            return Ok(());
        };
        let address = service.address.into();
        let from = match service.address {
            SocketAddr::V6(_) => self.local6(83, 0),
            // Clients have different addresses.
            SocketAddr::V4(_) if self.connections.len().is_multiple_of(2) => self.local(83, 0),
            SocketAddr::V4(_) => self.local(92, 0),
        };
        let kind = if service.protocol == UDP {
            Type::DGRAM
        } else {
            Type::STREAM
        };
        let client = self.bind(kind, from, None)?;
        let Some(socket) = self.sockets.last() else {
            return Ok(());
        };
        match index {
            REFUSING => match socket.connect_timeout(&address, TIMEOUT) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    return Err(io::Error::other(
                        "a connection was accepted that should have been refused",
                    ));
                }
            },
            SILENT => {
                socket.set_nonblocking(true)?;
                match socket.connect(&address) {
                    Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
                    other => other?,
                }
            }
            DATAGRAM => {
                socket.connect(&address)?;
                socket.send(&[0])?;
            }
            _ => socket.connect_timeout(&address, TIMEOUT)?,
        }
        self.connections.push(Conn {
            service: index,
            client,
            conntrack: self.conntrack,
        });
        Ok(())
    }

    fn bind(&mut self, kind: Type, address: SocketAddr, backlog: Option<i32>) -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        socket.bind(&address.into())?;
        if let Some(backlog) = backlog {
            socket.listen(backlog)?;
        }
        let bound = socket.local_addr()?.as_socket();
        self.sockets.push(socket);
        bound.ok_or_else(|| io::Error::other("a socket has no address"))
    }

    /// The IPv4 address of a role.
    fn local(&self, role: u8, port: u16) -> SocketAddr {
        SocketAddr::from((proof::ipv4(role, self.tag), port))
    }

    /// The IPv6 address of a role.
    fn local6(&self, role: u8, port: u16) -> SocketAddr {
        SocketAddr::from((ipv6(role, self.tag), port))
    }

    fn set_conntrack(&mut self, on: bool) {
        let written = fs::write("/proc/sys/net/ipv4/vs/conntrack", if on { "1" } else { "0" });
        self.conntrack = written.is_ok().then_some(on);
    }

    /// Makes the kernel print the connection table, and combines each line with the memory that the probe read.
    fn take_samples(&self, probe: &mut dyn ConnProbe) -> Result<Vec<Sample>, TestbedError> {
        let mut read = || -> io::Result<_> {
            let (mut listing, mut records) = (Vec::new(), Vec::new());
            for line in node::ipvs::connections()? {
                listing.push(line?);
                records.extend(probe.records()?);
            }
            records.extend(probe.records()?);
            Ok((listing, records))
        };
        let (listing, records) = read().map_err(step("read IPVS's connections"))?;
        let mut samples = Vec::new();
        for conn in &self.connections {
            // On a slow machine a connection may have expired.
            let Some(line) = listing.iter().find(|line| line.client == conn.client) else {
                continue;
            };
            let known = self.known(conn, line)?;
            let record = find_record(&records, conn.client)?;
            samples.push(Sample {
                conn: record.conn.clone(),
                pointees: record.pointees.clone(),
                known,
            });
        }
        if samples.is_empty() {
            Err(TestbedError::NotListed)
        } else {
            Ok(samples)
        }
    }

    fn known(&self, conn: &Conn, line: &ipvs::Connection) -> Result<Known, TestbedError> {
        let TestService { service, available } = &self.services[conn.service];
        if (line.service, line.real_server) != (service.address, service.real_server) {
            return Err(TestbedError::WrongRealServer {
                client: conn.client,
                real_server: service.real_server,
            });
        }
        let (state, inactive) = match line.state.as_str() {
            "UDP" => (0, None),
            name => {
                let state: TcpState = name.parse().map_err(|()| TestbedError::State(name.to_owned()))?;
                // Kernels disagree on whether the other states are active.
                let inactive = match name {
                    "ESTABLISHED" => Some(false),
                    "CLOSE" | "TIME_WAIT" => Some(true),
                    _ => None,
                };
                (state.number(), inactive)
            }
        };
        let mut flags = Flags {
            known: FORWARD_MASK,
            set: service.forward as u32,
        };
        for (bit, value) in [(INACTIVE, inactive), (NFCT, conn.conntrack)] {
            if let Some(value) = value {
                flags.known |= bit;
                flags.set |= if value { bit } else { 0 };
            }
        }
        Ok(Known {
            protocol: line.protocol,
            client: line.client,
            service: line.service,
            real_server: line.real_server,
            state,
            flags,
            weight: service.weight,
            available: *available,
            // It has the one connection that the limit allows.
            overloaded: service.limit == 1,
        })
    }
}

/// The only connection with this client at the offsets common to all known kernels. A connection may have been printed
/// twice.
fn find_record(records: &[Record], client: SocketAddr) -> Result<&Record, TestbedError> {
    let found: BTreeMap<u64, &Record> = records
        .iter()
        .filter(|record| has_client(&record.conn, client))
        .map(|record| (record.pointer, record))
        .collect();
    match found.len() {
        1 => found
            .into_values()
            .next()
            .ok_or(TestbedError::NotSeen { client, count: 0 }),
        count => Err(TestbedError::NotSeen { client, count }),
    }
}

/// The IPv6 address of a role in the proof with this tag.
fn ipv6(role: u8, tag: u16) -> Ipv6Addr {
    let mut bytes = [0; 16];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(proof::ipv6(role, tag)) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    Ipv6Addr::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pointer: u64, client: [u8; 4], port: u16) -> Record {
        let mut conn = vec![0; 288];
        conn[16..18].copy_from_slice(&port.to_be_bytes());
        conn[24..28].copy_from_slice(&client);
        Record {
            pointer,
            conn,
            pointees: Vec::new(),
        }
    }

    #[test]
    fn a_client_has_one_connection() {
        let records = [
            record(1, [127, 1, 1, 1], 80),
            record(2, [127, 1, 1, 2], 80),
            record(1, [127, 1, 1, 1], 80),
        ];
        let find = |text: &str| find_record(&records, text.parse().unwrap()).map(|record| record.pointer);
        assert_eq!(find("127.1.1.1:80").unwrap(), 1);
        assert_eq!(find("127.1.1.2:80").unwrap(), 2);
        assert!(matches!(
            find("127.1.1.3:80"),
            Err(TestbedError::NotSeen { count: 0, .. })
        ));
    }

    #[test]
    fn two_connections_of_one_client_are_an_error() {
        let records = [record(1, [127, 1, 1, 1], 80), record(2, [127, 1, 1, 1], 80)];
        let found = find_record(&records, "127.1.1.1:80".parse().unwrap());
        assert!(matches!(found, Err(TestbedError::NotSeen { count: 2, .. })));
    }
}
