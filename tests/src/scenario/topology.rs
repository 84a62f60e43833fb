//! Who is there: the node, clients around it, pods on it, services with a NodePort.

use std::net::IpAddr;

use serde::Deserialize;

use super::{Family, OtherNode, Overlay, address};

/// The node (address [`Topology::node_address`], the guest's own netns), its clients, its pods and their services.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// kube-proxy's mode.
    #[serde(default)]
    pub proxy: Proxy,
    /// Clients, each in a netns of its own.
    pub clients: Vec<Client>,
    /// Other nodes, each in a netns of its own.
    #[serde(default)]
    pub nodes: Vec<OtherNode>,
    /// How their pods are reached.
    #[serde(default)]
    pub overlay: Overlay,
    /// Pods, each in a netns of its own.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// Services with a NodePort.
    pub services: Vec<Service>,
    /// Rules of somebody else on the node, for `nft -f`.
    pub nft: Option<String>,
    /// What addresses all of them have.
    #[serde(skip)]
    pub family: Family,
}

impl Topology {
    /// The node's address towards the clients, and so of every NodePort.
    #[must_use]
    pub const fn node_address(&self) -> IpAddr {
        address::node(self.family)
    }

    /// The client of this name.
    #[must_use]
    pub fn client(&self, name: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.name == name)
    }

    /// The pod of this name.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.name == name)
    }

    /// The other node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&OtherNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The service of this name; without a name the only one there is.
    #[must_use]
    pub fn service(&self, name: Option<&str>) -> Option<&Service> {
        match (name, self.services.as_slice()) {
            (Some(name), all) => all.iter().find(|service| service.name == name),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// A mode of kube-proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proxy {
    /// IPVS, with IP sets and rules of iptables on top of nftables.
    #[default]
    Ipvs,
    /// Rules of iptables on top of nftables, as iptables has them on today's distributions.
    Iptables,
    /// Rules of iptables in the kernel's own old tables.
    IptablesLegacy,
    /// A table of nftables.
    Nftables,
}

/// A client of the node, outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its address, in the node's network 10.0.0.0/24.
    pub address: IpAddr,
}

/// A pod of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address; its node has `.1` of the same /24 on the other end of the pod's veth.
    pub address: IpAddr,
    /// The other node that it is on; left out: it is on the first one.
    pub node: Option<String>,
    /// The port that it listens on.
    #[serde(default = "Pod::default_port")]
    pub port: u16,
    /// What it does with a connection at first.
    #[serde(default)]
    pub behaviour: Behaviour,
}

impl Pod {
    const fn default_port() -> u16 {
        8080
    }
}

/// What a pod does with a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Says its name and closes first, in good order. The client's port is free at once.
    #[default]
    Fin,
    /// Says its name and closes 50 ms later with an RST (`SO_LINGER` 0).
    Rst,
    /// Says its name and keeps the connection open.
    Hold,
    /// Is alive, but nothing listens on its port.
    NoListener,
    /// Is alive, but discards every SYN before its TCP sees it.
    Silent,
    /// Is gone, and the node has not learned it: the address answers nothing, its neighbour entry stays valid.
    Gone,
}

/// A service with a NodePort. Its namespace is `default`, and its only port is called `http`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its port on the node.
    pub node_port: u16,
    /// IPVS' scheduler for it.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// Which pods clients from outside may reach: all of them, masqueraded, or only those on this node, which then
    /// see the clients' addresses.
    #[serde(default)]
    pub external_traffic_policy: Policy,
    /// The same for its cluster address. It matters in IPVS mode: with `local` both ways and no pod on this node the
    /// virtual server of the NodePort has no real server; otherwise kube-proxy gives it those of other nodes.
    #[serde(default)]
    pub internal_traffic_policy: Policy,
    /// For so many seconds a client stays with its pod (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// The pods that kube-proxy has for it at first.
    #[serde(default)]
    pub real_servers: Vec<RealServer>,
}

impl Service {
    /// The name that kube-proxy's comments have for its port.
    #[must_use]
    pub fn port_name(&self) -> String {
        format!("default/{}:http", self.name)
    }
}

/// Which pods traffic may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those on this node.
    Local,
}

/// IPVS' scheduler of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Round robin, kube-proxy's default.
    #[default]
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connection.
    Lc,
    /// Source hashing.
    Sh,
}

impl Scheduler {
    /// Its name for `ipvsadm`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Sh => "sh",
        }
    }
}

/// A pod of a service: a real server in IPVS mode, an endpoint in the others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServer {
    /// The pod's name.
    pub pod: String,
    /// Its weight in IPVS; 0 is a pod that drains. In the other modes a pod is there or it is not.
    #[serde(default = "one")]
    pub weight: u16,
}

const fn one() -> u16 {
    1
}
