//! The half of the proof that acts: virtual services and connections whose every property is known, in a network
//! namespace that nobody else sees and that ends with the thread.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use socket2::{Domain, Socket, Type};

use super::{
    control::{Control, Forward, Service, loopback_up},
    layout::{Behind, Flags, Known, Sample, shows_client},
};
use crate::{
    facts::ipvs::{self, TcpState},
    node::{self, netns},
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bits of `ip_vs_conn.flags`, the same in all kernels.
const FORWARD_MASK: u32 = 3;
const INACTIVE: u32 = 0x100;
const NFCT: u32 = 0x1_0000;

/// All traffic stays inside one machine's memory; a slow emulation needs some of this.
const PATIENCE: Duration = Duration::from_secs(10);

/// One entry's memory, as a probe on the function that prints it saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The entry's address, which tells entries apart.
    pub pointer: u64,
    /// The entry, from its start.
    pub conn: Vec<u8>,
    /// What the words at the candidates of [`Field::Dest`](super::Field::Dest) lead to, as far as it can be read.
    pub behind: Vec<Behind>,
}

/// A probe on `ip_vs_conn_seq_show(seq, v)`, seen from the proof.
///
/// The kernel calls that function with `v` = 1 for the heading, and else with an entry; also, on many kernels, with
/// the entries of all other network namespaces. Those of the proof have clients in 127.0.0.0/8 or `::1`.
pub trait Witness: Send {
    /// Starts, and tells which thread will read the table, so that the probe can leave out all others. The number
    /// is that of this process's own pid namespace, which in a container is not the one that the kernel counts in.
    fn watch(&mut self, thread: u32) -> io::Result<()>;
    /// All records since the last call. When it is called, the probe has run for every entry of the table.
    fn records(&mut self) -> io::Result<Vec<Record>>;
}

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// One of the preparations failed.
    #[error("cannot {what}")]
    Step {
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Connections were made, but IPVS lists none of them.
    #[error("IPVS lists none of the connections that were made through it")]
    NotListed,
    /// IPVS lists a connection otherwise than it was made.
    #[error("IPVS lists the connection from {client} with another real server than {real_server}")]
    Misled {
        /// The client.
        client: SocketAddr,
        /// The real server that it was to get.
        real_server: SocketAddr,
    },
    /// The probe saw no entry, or several, with the client where all kernels that the proof knows keep it.
    #[error("the probe saw {count} entries with the client {client} at the known places")]
    NotSeen {
        /// The client.
        client: SocketAddr,
        /// Entries that fit.
        count: usize,
    },
    /// IPVS prints a state whose number is not known.
    #[error("IPVS lists a connection in the unknown state `{0}`")]
    State(String),
}

fn step(what: &'static str) -> impl Fn(io::Error) -> StageError {
    move |source| StageError::Step { what, source }
}

/// Makes connections through IPVS in a network namespace of their own, and has each of them witnessed as the
/// kernel prints it, before and after its real server changes.
///
/// `scheduler` must be loaded, and so must IPVS, or the kernel would load them. Nothing of it remains.
pub fn collect_samples(scheduler: &str, witness: &mut dyn Witness) -> Result<Vec<Sample>, StageError> {
    netns::on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| step("make a network namespace")(errno.into()))
            .and_then(|()| {
                // Before anything connects here: whoever traces meanwhile leaves out what happens in this namespace.
                let thread = gettid().as_raw().cast_unsigned();
                witness.watch(thread).map_err(step("start the probe"))?;
                Stage::set(scheduler)?.play(witness)
            })
    })
    .map_err(step("start a thread"))?
}

/// What stands on the stage. Dropping the sockets lets the network namespace end.
struct Stage {
    control: Control,
    services: Vec<Set>,
    connections: Vec<Conn>,
    sockets: Vec<Socket>,
    /// Whether entries are now made with `IP_VS_CONN_F_NFCT`; unknown where that cannot be set.
    conntrack: Option<bool>,
}

/// A virtual service and what has become of its real server.
struct Set {
    service: Service,
    available: bool,
}

/// A connection through the service of this index.
struct Conn {
    service: usize,
    client: SocketAddr,
    conntrack: Option<bool>,
}

/// Services by index; each has a role.
const ANSWERING: usize = 0;
const REFUSING: usize = 1;
const SILENT: usize = 2;
const ROUTED: usize = 3;
const DATAGRAM: usize = 4;
const SIX: usize = 5;

impl Stage {
    fn set(scheduler: &str) -> Result<Self, StageError> {
        loopback_up().map_err(step("bring the loopback device up"))?;
        let mut stage = Self {
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
            stage.services.push(Set {
                service,
                available: true,
            });
        }
        Ok(stage)
    }

    /// Starts the real servers. All weights, ports and addresses are unlike each other and anything usual.
    fn listen(&mut self) -> io::Result<Vec<Service>> {
        let answering = self.bind(Type::STREAM, local(161, 0), Some(16))?;
        // Bound, but not listening: connections are refused, and nobody else can get the port.
        let refusing = self.bind(Type::STREAM, local(178, 0), None)?;
        let silent = self.bind(Type::STREAM, local(197, 0), Some(1))?;
        // Two connections past IPVS fill the queue of a listener that takes one; it discards further SYNs.
        for _ in 0..2 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            filler.connect_timeout(&silent.into(), PATIENCE)?;
            self.sockets.push(filler);
        }
        // A packet that is routed keeps the service's address, so that is where its listener is.
        let routed = self.bind(Type::STREAM, local(34, 30_117), Some(16))?;
        let datagram = self.bind(Type::DGRAM, local(211, 0), None)?;
        let service = |protocol, address, real_server, weight| Service {
            protocol,
            address,
            real_server,
            forward: Forward::Masquerade,
            weight,
            limit: 0,
        };
        let mut services = vec![
            service(TCP, local(31, 30_083), answering, 4129),
            service(TCP, local(32, 31_255), refusing, 12_347),
            Service {
                limit: 1,
                ..service(TCP, local(33, 30_809), silent, 771)
            },
            Service {
                forward: Forward::Route,
                ..service(TCP, routed, local(222, 30_117), 65_537)
            },
            service(UDP, local(35, 32_001), datagram, 95),
        ];
        // Without IPv6 the families stay unproven, and all else is none the worse.
        if let Ok(six) = self.bind(Type::STREAM, SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), Some(16)) {
            services.push(service(
                TCP,
                SocketAddr::from((Ipv6Addr::LOCALHOST, 30_666)),
                six,
                1021,
            ));
        }
        Ok(services)
    }

    fn play(mut self, witness: &mut dyn Witness) -> Result<Vec<Sample>, StageError> {
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
        let mut samples = self.witnessed(witness)?;

        self.set_conntrack(true);
        for (index, weight) in [(ANSWERING, 60_013), (REFUSING, 0)] {
            self.connect(index).map_err(&connect)?;
            self.services[index].service.weight = weight;
            let changed = self.control.change_real_server(&self.services[index].service);
            changed.map_err(step("change a real server's weight"))?;
        }
        samples.extend(self.witnessed(witness)?);

        for index in [ANSWERING, ROUTED] {
            self.services[index].available = false;
            let removed = self.control.remove_real_server(&self.services[index].service);
            removed.map_err(step("remove a real server"))?;
        }
        samples.extend(self.witnessed(witness)?);
        Ok(samples)
    }

    /// Opens a connection through a service and leaves it as its real server leaves it.
    fn connect(&mut self, index: usize) -> io::Result<()> {
        let Some(Set { service, .. }) = self.services.get(index) else {
            return Ok(());
        };
        let address = service.address.into();
        let from = match service.address {
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
            // Clients differ in their addresses too.
            SocketAddr::V4(_) if self.connections.len().is_multiple_of(2) => local(83, 0),
            SocketAddr::V4(_) => local(92, 0),
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
            REFUSING => match socket.connect_timeout(&address, PATIENCE) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    return Err(io::Error::other(
                        "a connection that should be refused was accepted",
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
            _ => socket.connect_timeout(&address, PATIENCE)?,
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
        bound.ok_or_else(|| io::Error::other("a socket without address"))
    }

    fn set_conntrack(&mut self, on: bool) {
        let written = fs::write("/proc/sys/net/ipv4/vs/conntrack", if on { "1" } else { "0" });
        self.conntrack = written.is_ok().then_some(on);
    }

    /// Has the kernel print the table, and joins what it prints with what the probe saw meanwhile.
    fn witnessed(&self, witness: &mut dyn Witness) -> Result<Vec<Sample>, StageError> {
        let listing = node::ipvs::connections().and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let listing = listing.map_err(step("read IPVS's connections"))?;
        let records = witness.records().map_err(step("read the probe's records"))?;
        let mut samples = Vec::new();
        for conn in &self.connections {
            // On a slow machine an entry can have expired.
            let Some(line) = listing.iter().find(|line| line.client == conn.client) else {
                continue;
            };
            let known = self.known(conn, line)?;
            let record = find_record(&records, conn.client)?;
            samples.push(Sample {
                conn: record.conn.clone(),
                behind: record.behind.clone(),
                known,
            });
        }
        if samples.is_empty() {
            Err(StageError::NotListed)
        } else {
            Ok(samples)
        }
    }

    fn known(&self, conn: &Conn, line: &ipvs::Connection) -> Result<Known, StageError> {
        let Set { service, available } = &self.services[conn.service];
        if (line.service, line.real_server) != (service.address, service.real_server) {
            return Err(StageError::Misled {
                client: conn.client,
                real_server: service.real_server,
            });
        }
        let (state, inactive) = match line.state.as_str() {
            "UDP" => (0, None),
            name => {
                let state: TcpState = name.parse().map_err(|()| StageError::State(name.to_owned()))?;
                // Kernels differ in what they count as active between these.
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
            // The one connection that it may have is there.
            overloaded: service.limit == 1,
        })
    }
}

/// The one entry that has this client where all kernels that the proof knows keep it. An entry can have been
/// printed twice.
fn find_record(records: &[Record], client: SocketAddr) -> Result<&Record, StageError> {
    let fit: BTreeMap<u64, &Record> = records
        .iter()
        .filter(|record| shows_client(&record.conn, client))
        .map(|record| (record.pointer, record))
        .collect();
    match fit.len() {
        1 => fit
            .into_values()
            .next()
            .ok_or(StageError::NotSeen { client, count: 0 }),
        count => Err(StageError::NotSeen { client, count }),
    }
}

/// An address of the loopback network that no other tracer on this machine uses at the same time.
fn local(role: u8, port: u16) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, role, high ^ role, low), port))
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
            behind: Vec::new(),
        }
    }

    #[test]
    fn finds_the_entry_of_a_client() {
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
            Err(StageError::NotSeen { count: 0, .. })
        ));
    }

    #[test]
    fn two_entries_of_a_client_are_none() {
        let records = [record(1, [127, 1, 1, 1], 80), record(2, [127, 1, 1, 1], 80)];
        let found = find_record(&records, "127.1.1.1:80".parse().unwrap());
        assert!(matches!(found, Err(StageError::NotSeen { count: 2, .. })));
    }
}
