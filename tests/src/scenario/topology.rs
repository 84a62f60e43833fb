//! The topology: the node, the clients around it, the pods on it, and services with a NodePort.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;

use super::{Family, OtherNode, Overlay, SysctlValue, address};

/// The node (address [`Topology::node_address`], in the guest's own netns), its clients, its pods and their
/// services.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// kube-proxy's mode.
    #[serde(default)]
    pub proxy: Proxy,
    /// The version of kube-proxy whose rules are written.
    #[serde(default)]
    pub version: Version,
    /// Addresses of the node in addition to [`Topology::node_address`]: services are available at each of
    /// them.
    #[serde(default)]
    pub node_addresses: Vec<IpAddr>,
    /// Clients, each in its own netns unless it is on the node.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// Other nodes, each in its own netns.
    #[serde(default)]
    pub nodes: Vec<OtherNode>,
    /// How their pods are reached.
    #[serde(default)]
    pub overlay: Overlay,
    /// Pods, each in its own netns.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// Services with a NodePort.
    pub services: Vec<Service>,
    /// Third-party rules on the node, for `nft -f`.
    pub nft: Option<String>,
    /// The family of all addresses.
    #[serde(skip)]
    pub family: Family,
}

impl Topology {
    /// The node's address towards the clients, where every NodePort is available.
    #[must_use]
    pub const fn node_address(&self) -> IpAddr {
        address::node(self.family)
    }

    /// The clients that are not on the node.
    pub fn outside(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(|client| !client.on_node)
    }

    /// All addresses of the node at which services are available; [`Topology::node_address`] comes first.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.node_address()]
            .into_iter()
            .chain(self.node_addresses.iter().copied())
    }

    /// All parties that can connect, with their source addresses: clients, pods and other nodes. A pod in its
    /// node's netns is excluded: it is indistinguishable from the node itself.
    pub fn parties(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let clients = self.clients.iter().map(|client| (&client.name, client.address));
        let pods = self.pods.iter().filter(|pod| !pod.host_network);
        let pods = pods.map(|pod| (&pod.name, pod.address));
        let nodes = self.nodes.iter().map(|node| (&node.name, node.address));
        clients
            .chain(pods)
            .chain(nodes)
            .map(|(name, address)| (name.as_str(), address))
    }

    /// Fills in the addresses that a scenario may omit: of clients on the node and of pods in a node's netns.
    pub(super) fn fill_in(&mut self) {
        let own = self.node_address();
        for client in &mut self.clients {
            if client.on_node && client.address == OMITTED {
                client.address = own;
            }
        }
        for pod in &mut self.pods {
            if pod.host_network && pod.address == OMITTED {
                let node = pod
                    .node
                    .as_ref()
                    .map(|name| self.nodes.iter().find(|node| node.name == *name));
                pod.address = match node {
                    None => own,
                    // The check reports a node that does not exist.
                    Some(node) => node.map_or(OMITTED, |node| node.address),
                };
            }
        }
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

    /// The service of this name; without a name, the only one.
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
    /// IPVS, with IP sets and iptables-nft rules.
    #[default]
    Ipvs,
    /// iptables-nft rules.
    Iptables,
    /// iptables-legacy rules.
    IptablesLegacy,
    /// An nftables table.
    Nftables,
}

/// A version of kube-proxy. In IPVS mode, all but 1.20 write the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Version {
    /// 1.20: in iptables mode, SYNs to a service without a local endpoint are marked, and dropped by
    /// kubelet's rule.
    #[serde(rename = "1.20")]
    V1_20,
    /// 1.30: in iptables mode without counters for accepted and invalid packets.
    #[serde(rename = "1.30")]
    V1_30,
    /// 1.33.
    #[default]
    #[serde(rename = "1.33")]
    V1_33,
    /// 1.36: in nftables mode, a service's chain translates by a map, without chains for endpoints.
    #[serde(rename = "1.36")]
    V1_36,
}

/// The placeholder for an address that the scenario omits.
const OMITTED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A client of the node, outside the cluster or on the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its address, in the node's network 10.0.0.0/24; on the node, one of the node's own or of 127.0.0.0/8.
    #[serde(default = "omitted")]
    pub address: IpAddr,
    /// It is a process on the node: its SYNs enter through no device.
    #[serde(default)]
    pub on_node: bool,
}

/// A pod of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address; the node's end of its veth has `.1` of the same /24.
    #[serde(default = "omitted")]
    pub address: IpAddr,
    /// It has no own netns, but its node's netns (`hostNetwork: true`) and address.
    #[serde(default)]
    pub host_network: bool,
    /// Sysctls of its netns.
    #[serde(default)]
    pub sysctls: BTreeMap<String, SysctlValue>,
    /// The other node it runs on; by default it runs on the first node.
    pub node: Option<String>,
    /// The port it listens on.
    #[serde(default = "Pod::default_port")]
    pub port: u16,
    /// Its behaviour at the start.
    #[serde(default)]
    pub behaviour: Behaviour,
}

impl Pod {
    const fn default_port() -> u16 {
        8080
    }
}

/// The behaviour of a pod towards connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Sends its name and closes first, with FIN. The client's port is free at once.
    #[default]
    Fin,
    /// Sends its name and closes 50 ms later with RST (`SO_LINGER` 0).
    Rst,
    /// Sends its name and keeps the connection open.
    Hold,
    /// Runs, but has no listener on its port.
    NoListener,
    /// Runs, but drops every SYN before its TCP sees it.
    Silent,
    /// Answers everything [`Behaviour::SLOW_MS`] late, so that clients retransmit their SYN.
    Slow,
    /// Listens, but never accepts, and its accept queue is full.
    AcceptFull,
    /// Listens, but never accepts, and its accept queue has one free place.
    AcceptLast,
    /// Listens, but its SYN queue is full, and SYN cookies are disabled.
    SynFull,
    /// Gone, unknown to the node: the address does not answer, and its neighbour entry stays valid.
    Gone,
}

impl Behaviour {
    /// The delay of [`Behaviour::Slow`], in milliseconds.
    pub const SLOW_MS: u32 = 1500;
}

/// A service with a NodePort. Its namespace is `default`, and its only port is called `http`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its port on the node.
    pub node_port: u16,
    /// Its IPVS scheduler.
    #[serde(default)]
    pub scheduler: Scheduler,
    /// The pods that clients from outside may reach: all, with masquerade, or only those on this node, which
    /// then see the clients' addresses.
    #[serde(default)]
    pub external_traffic_policy: Policy,
    /// The same for its cluster address. It matters in IPVS mode: if both policies are `local` and no pod is
    /// on this node, the NodePort's virtual service has no real server; otherwise kube-proxy adds the real
    /// servers of other nodes.
    #[serde(default)]
    pub internal_traffic_policy: Policy,
    /// How many seconds a client stays on its pod (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// Its pods in kube-proxy at the start.
    #[serde(default)]
    pub real_servers: Vec<RealServer>,
}

impl Service {
    /// The name of its port in kube-proxy's comments.
    #[must_use]
    pub fn port_name(&self) -> String {
        format!("default/{}:http", self.name)
    }
}

/// The pods that traffic may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Pods of all nodes.
    #[default]
    Cluster,
    /// Pods of this node.
    Local,
}

/// The IPVS scheduler of a service.
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
    /// Its weight in IPVS; 0 means draining. In the other modes it is always 1.
    #[serde(default = "one")]
    pub weight: u16,
}

const fn one() -> u16 {
    1
}

const fn omitted() -> IpAddr {
    OMITTED
}
