//! A pod: its netns, its server, and how it lives and dies.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::netns::Netns;
use super::tool;
use super::topology::is_up;
use crate::scenario::{self, Behaviour, address};

/// The time between a reply and the RST that follows it: enough for the reply to be read first.
const BEFORE_RST: Duration = Duration::from_millis(50);

/// How often a server that waits for clients looks whether it must end.
const LOOK_MS: u16 = 50;

/// Makes a pod deaf: every SYN is discarded before its TCP sees it.
const DEAF: &str = "\
table inet lab {
    chain deaf {
        type filter hook input priority filter
        tcp flags & (syn | ack) == syn drop
    }
}
";

/// A pod on a node.
#[derive(Debug)]
pub(super) struct Pod {
    name: String,
    address: IpAddr,
    port: u16,
    netns: Netns,
    /// The node that it is on, if that is not the first one.
    host: Option<Netns>,
    behaviour: Behaviour,
    server: Option<Server>,
}

impl Pod {
    /// Builds the pod's netns and joins it to its node, the first one or another, as a network plugin does.
    pub(super) fn create(pod: &scenario::Pod, host: Option<&Netns>) -> Result<Self> {
        let netns = Netns::create(&pod.name, pod.address)?;
        let mut built = Self {
            name: pod.name.clone(),
            address: pod.address,
            port: pod.port,
            netns,
            host: host.cloned(),
            behaviour: Behaviour::NoListener,
            server: None,
        };
        let (device, mac, name) = (built.device(), address::mac(pod.address), &pod.name);
        let (address, gateway) = (pod.address, address::gateway(pod.address));
        let prefix = address::prefix(address);
        built.on_node(&format!(
            "link add {device} type veth peer name eth0 address {mac} netns {name}\n\
             addr add {} dev {device}\n\
             link set {device} up\n",
            address::of_device(gateway, prefix)
        ))?;
        built.netns.ip(&format!(
            "addr add {} dev eth0\nlink set eth0 up\nroute add default via {gateway}\n",
            address::of_device(address, prefix)
        ))?;
        built.behave(pod.behaviour)?;
        Ok(built)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its netns.
    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its node's end of its veth.
    pub(super) fn device(&self) -> String {
        format!("cali{}", self.name)
    }

    /// Whether it has its address: one that is gone has none.
    pub(super) fn has_address(&self) -> bool {
        self.behaviour != Behaviour::Gone
    }

    /// Its node's address in its network.
    pub(super) fn gateway(&self) -> IpAddr {
        address::gateway(self.address)
    }

    /// Whether its node's end of its veth carries packets.
    pub(super) fn is_up(&self) -> Result<bool> {
        let device = self.device();
        match &self.host {
            None => Ok(is_up(&device, self.address)),
            Some(host) => Ok(
                tool::run(&format!("ip -n {} -br link show dev {device}", host.name()))?
                    .split_whitespace()
                    .nth(1)
                    .is_some_and(|state| state == "UP"),
            ),
        }
    }

    /// Runs `ip` on its node, on each line.
    fn on_node(&self, lines: &str) -> Result<()> {
        match &self.host {
            None => tool::feed("ip -batch -", lines).map(drop),
            Some(host) => host.ip(lines),
        }
    }

    /// Changes what the pod does from now on.
    pub(super) fn behave(&mut self, behaviour: Behaviour) -> Result<()> {
        let (address, netns, device) = (self.address, self.netns.clone(), self.device());
        let prefix = address::prefix(address);
        let listener = SocketAddr::new(address::any(address), self.port);
        match self.behaviour {
            Behaviour::Silent => {
                netns.run(|| tool::run("nft delete table inet lab"))?;
            }
            Behaviour::Gone => {
                netns.ip(&format!(
                    "addr add {} dev eth0\nroute replace default via {}\n",
                    address::of_device(address, prefix),
                    address::gateway(address)
                ))?;
                self.on_node(&format!("neigh flush dev {device}\n"))?;
            }
            _ => {}
        }
        match behaviour {
            Behaviour::Fin | Behaviour::Rst | Behaviour::Hold | Behaviour::Silent => match &self.server {
                Some(server) => server.behave(behaviour),
                None => self.server = Some(Server::start(&self.name, &netns, listener, behaviour)?),
            },
            Behaviour::NoListener | Behaviour::Gone => self.server = None,
        }
        match behaviour {
            Behaviour::Silent => {
                netns.run(|| tool::feed("nft -f -", DEAF))?;
            }
            Behaviour::Gone => {
                let mac = address::mac(address);
                self.on_node(&format!(
                    "neigh replace {address} lladdr {mac} dev {device} nud permanent\n"
                ))?;
                netns.ip(&format!("addr del {address}/{prefix} dev eth0\n"))?;
            }
            _ => {}
        }
        self.behaviour = behaviour;
        Ok(())
    }
}

/// A listener and the thread that serves it. Dropping it closes the listener and all connections.
#[derive(Debug)]
struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    stop: AtomicBool,
    behaviour: Mutex<Behaviour>,
}

impl Server {
    fn start(name: &str, netns: &Netns, to: SocketAddr, behaviour: Behaviour) -> Result<Self> {
        let listener = netns.run(|| {
            let listener = TcpListener::bind(to).with_context(|| format!("cannot listen on {to}"))?;
            listener
                .set_nonblocking(true)
                .context("cannot set up the listener")?;
            Ok(listener)
        })?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            behaviour: Mutex::new(behaviour),
        });
        // The listener stays in the netns that it was made in, whichever its thread is in.
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&listener)
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.shared.lock() = behaviour;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("lab-guest: the server of {} panicked", self.shared.name);
        }
    }
}

impl Shared {
    fn serve(&self, listener: &TcpListener) {
        let mut held = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.answer(stream, &mut held) {
                        // The client may have gone already; that it was served is its own truth to tell.
                        eprintln!("lab-guest: {}: a client went away: {error}", self.name);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut wait, PollTimeout::from(LOOK_MS));
                }
                // A client that left before it was accepted.
                Err(_) => {}
            }
        }
    }

    fn answer(&self, mut stream: TcpStream, held: &mut Vec<TcpStream>) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.write_all(format!("{}\n", self.name).as_bytes())?;
        let behaviour = *self.lock();
        match behaviour {
            Behaviour::Hold => held.push(stream),
            Behaviour::Rst => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                thread::spawn(move || {
                    thread::sleep(BEFORE_RST);
                    drop(stream);
                });
            }
            _ => drop(stream),
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
