//! A pod: its netns, and its behaviour.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use super::cancel::Cancel;
use super::netns::Netns;
use super::node_state::is_up;
use super::server::Server;
use super::{neighbour, segment, sysctl, tool};
use crate::scenario::{self, Behaviour, HalfOpen, address};

/// The sysctls of a pod whose SYN queue gets filled: no cookies, and a short queue.
const SHORT_SYN_QUEUE: [(&str, u16); 2] = [
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_max_syn_backlog", HANDSHAKES),
];

/// This many handshakes fill the queue: less than a quarter of `tcp_max_syn_backlog` is then left, which is
/// reserved for known clients (`tcp_conn_request` in `net/ipv4/tcp_input.c`).
const HANDSHAKES: u16 = 4;

/// A pod on a node.
#[derive(Debug)]
pub(super) struct Pod {
    name: String,
    address: IpAddr,
    port: u16,
    netns: Netns,
    /// The netns of its node. For a hostNetwork pod this is its own netns too.
    host: Netns,
    host_network: bool,
    behaviour: Behaviour,
    server: Option<Server>,
    /// Sysctls of its netns that its behaviour changed, with their previous values.
    sysctls: sysctl::Changed,
}

impl Pod {
    /// Builds the pod's netns and its link to its node, like a network plugin.
    pub(super) fn create(pod: &scenario::Pod, host: Netns) -> Result<Self> {
        let netns = if pod.host_network {
            host.clone()
        } else {
            Netns::create(&pod.name, pod.address)?
        };
        let mut built = Self {
            name: pod.name.clone(),
            address: pod.address,
            port: pod.port,
            netns,
            host,
            host_network: pod.host_network,
            behaviour: Behaviour::NoListener,
            server: None,
            sysctls: sysctl::Changed::default(),
        };
        if !pod.host_network {
            built.connect_to_node()?;
            built.netns.run(|| {
                pod.sysctls
                    .iter()
                    .try_for_each(|(name, value)| sysctl::write(name, value))
            })?;
        }
        built.behave(pod.behaviour)?;
        Ok(built)
    }

    fn connect_to_node(&self) -> Result<()> {
        let (device, name, address) = (self.device(), &self.name, self.address);
        let (mac, gateway) = (address::mac(address), address::gateway(address));
        let prefix = address::prefix(address);
        self.host.ip(&format!(
            "link add {device} type veth peer name eth0 address {mac} netns {name}\n\
             addr add {} dev {device}\n\
             link set {device} up\n",
            address::of_device(gateway, prefix)
        ))?;
        self.netns.ip(&format!(
            "addr add {} dev eth0\nlink set eth0 up\nroute add default via {gateway}\n",
            address::of_device(address, prefix)
        ))
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

    /// Whether it has a link on which it can resolve its node: a pod that is gone has no address, and a slow
    /// one has already resolved it.
    pub(super) fn can_resolve_gateway(&self) -> bool {
        !self.host_network && !matches!(self.behaviour, Behaviour::Gone | Behaviour::Slow)
    }

    /// Its node's address in its network.
    pub(super) fn gateway(&self) -> IpAddr {
        address::gateway(self.address)
    }

    /// Whether its node's end of its veth carries packets.
    pub(super) fn is_up(&self) -> Result<bool> {
        let device = self.device();
        match self.host.name() {
            _ if self.host_network => Ok(true),
            None => Ok(is_up(&device, self.address)),
            Some(host) => Ok(tool::run(&format!("ip -n {host} -br link show dev {device}"))?
                .split_whitespace()
                .nth(1)
                .is_some_and(|state| state == "UP")),
        }
    }

    /// Changes the pod's behaviour.
    pub(super) fn behave(&mut self, behaviour: Behaviour) -> Result<()> {
        self.undo_behaviour()?;
        let (address, port) = (self.address, self.port);
        let listener = SocketAddr::new(address::any(address), port);
        match behaviour {
            Behaviour::NoListener | Behaviour::Gone => self.server = None,
            _ => match &mut self.server {
                Some(server) => server.behave(&self.netns, behaviour)?,
                None => self.server = Some(Server::start(&self.name, &self.netns, listener, behaviour)?),
            },
        }
        match behaviour {
            Behaviour::Silent => self.discard(&format!("tcp dport {port} tcp flags & (syn | ack) == syn"))?,
            Behaviour::SynFull => self.fill_syn_queue()?,
            Behaviour::Slow => {
                // Neither the node's neighbour entry nor the pod's may add to the delay.
                self.make_neighbour_permanent()?;
                neighbour::resolve(&self.netns, self.gateway(), &Cancel::default())?;
                let delay = Behaviour::SLOW_MS;
                self.netns
                    .run(|| tool::run(&format!("tc qdisc add dev eth0 root netem delay {delay}ms")))?;
            }
            Behaviour::Gone => {
                self.make_neighbour_permanent()?;
                let prefix = address::prefix(address);
                self.netns
                    .ip(&format!("addr del {address}/{prefix} dev eth0\n"))?;
            }
            _ => {}
        }
        self.behaviour = behaviour;
        Ok(())
    }

    /// Undoes the last behaviour's changes, except those of the server.
    fn undo_behaviour(&mut self) -> Result<()> {
        let Self {
            address,
            netns,
            host,
            sysctls,
            ..
        } = self;
        let device = format!("cali{}", self.name);
        match self.behaviour {
            Behaviour::Silent | Behaviour::SynFull => {
                let name = &self.name;
                netns.run(|| {
                    tool::run(&format!("nft delete table inet lab-{name}"))?;
                    sysctls.restore()
                })
            }
            Behaviour::Slow => {
                netns.run(|| tool::run("tc qdisc del dev eth0 root"))?;
                host.ip(&format!("neigh flush dev {device}\n"))
            }
            Behaviour::Gone => {
                let (prefix, gateway) = (address::prefix(*address), address::gateway(*address));
                netns.ip(&format!(
                    "addr add {} dev eth0\nroute replace default via {gateway}\n",
                    address::of_device(*address, prefix)
                ))?;
                host.ip(&format!("neigh flush dev {device}\n"))
            }
            _ => Ok(()),
        }
    }

    /// Drops matching packets before the pod's TCP sees them.
    fn discard(&self, matches: &str) -> Result<()> {
        let rules = format!(
            "table inet lab-{} {{\n    chain deaf {{\n        type filter hook input priority filter\n        \
             {matches} drop\n    }}\n}}\n",
            self.name
        );
        self.netns.run(|| tool::run_with_input("nft -f -", &rules))?;
        Ok(())
    }

    /// Fills the listener's SYN queue with handshakes that never complete: their SYN-ACKs are dropped.
    fn fill_syn_queue(&mut self) -> Result<()> {
        let (port, loopback) = (self.port, address::loopback(self.address));
        self.discard(&format!("iifname lo tcp sport {port}"))?;
        let Self { netns, sysctls, .. } = self;
        netns
            .run(|| {
                for (name, value) in SHORT_SYN_QUEUE {
                    sysctls.set(name, value)?;
                }
                let syn = HalfOpen::default();
                let at = |port| SocketAddr::new(loopback, port);
                (1..=HANDSHAKES).try_for_each(|from| segment::send_syn(at(from), at(port), &syn))
            })
            .context("cannot fill the SYN queue")
    }

    /// Makes the node's neighbour entry for the pod permanent.
    fn make_neighbour_permanent(&self) -> Result<()> {
        let (address, mac, device) = (self.address, address::mac(self.address), self.device());
        self.host.ip(&format!(
            "neigh replace {address} lladdr {mac} dev {device} nud permanent\n"
        ))
    }
}
