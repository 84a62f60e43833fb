//! The steps of a scenario.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::{Behaviour, KubeProxy, SysctlValue};

/// One event. In the file: a table with one key, the name of the step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A client connects.
    Connect(Connect),
    /// Several clients connect at the same time; the step ends when all of them are done.
    Parallel(Vec<Connect>),
    /// A client sends a line on each connection that it holds.
    Talk(Talk),
    /// A client sends packets that look like SYNs but are not.
    Strays(Strays),
    /// A real server's weight changes.
    SetWeight(Membership),
    /// A pod becomes a real server of a service.
    AddRealServer(Membership),
    /// A pod is removed from a service.
    RemoveRealServer(Removal),
    /// kube-proxy of a real control plane is started or stopped, or cleans up.
    KubeProxy(KubeProxy),
    /// A pod changes its behaviour.
    Pod(Change),
    /// Sysctls of the node change.
    Sysctl(BTreeMap<String, SysctlValue>),
    /// Rules are loaded on the node by `nft -f`.
    Nft(String),
    /// The node's shell runs a command. Whatever it changes (rules, routes, addresses, devices, qdiscs,
    /// network sysctls, modules, processes) is restored when the scenario is over.
    Run(String),
    /// The shell runs a command in the netns of a pod or a client.
    RunIn(RunIn),
    /// Waits until tracer prints this text on standard output or standard error.
    #[serde(rename = "tracer_says")]
    WaitForOutput(String),
    /// Waits until tracer has reported the fates of this many flows, counted from the start: what it reads
    /// when it reports them must not change before.
    #[serde(rename = "fates_told")]
    WaitForFates(usize),
    /// Waits for this many milliseconds.
    SleepMs(u32),
    /// A message for viewers.
    Say(String),
    /// Waits until this many seconds have passed since the last such step. Part of [`super::Rounds`].
    #[serde(skip)]
    NextRound(u32),
    /// Measures what tracer needs. Part of [`super::Rounds`].
    #[serde(skip)]
    Measure(Moment),
}

/// When tracer's needs are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After the first round.
    Start,
    /// After the round in the middle.
    Middle,
    /// After the last round.
    End,
}

/// Connection attempts of one client, in sequence or several at once.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// The name of the client, or of a pod or another node that acts as one.
    pub client: String,
    /// The service's name; needed only if there are several.
    pub to: Option<String>,
    /// The address to connect to, of the node or of another one; by default the node's first one.
    pub to_address: Option<IpAddr>,
    /// The source port of the first attempt.
    pub source_port: u16,
    /// The node itself opens the connection, from this port of the service's address: `client` and
    /// `source_port` are its peer, which must listen there. tracer must report a flow only if it is expected
    /// to fail.
    pub from_node_port: Option<u16>,
    /// The number of consecutive source ports.
    #[serde(default = "one")]
    pub count: u16,
    /// The number of attempts from each port, before the next port.
    #[serde(default = "one")]
    pub times: u16,
    /// The number of ports that connect at the same time.
    #[serde(default = "one")]
    pub at_once: u16,
    /// A pause after each attempt, in milliseconds.
    #[serde(default)]
    pub pause_ms: u32,
    /// The TTL of the client's packets.
    pub ttl: Option<u8>,
    /// The MSS of the client's socket.
    pub mss: Option<u16>,
    /// The client closes its socket if it is not connected after this many milliseconds. Later packets for it
    /// are answered with RST.
    pub abort_ms: Option<u32>,
    /// The client reads only the server's first line and closes first. By default it waits for the server to
    /// close.
    pub close: Option<Close>,
    /// The client has no TCP: it sends SYNs and ignores the answers.
    pub half_open: Option<HalfOpen>,
    /// Keep the connections open until the scenario is over.
    #[serde(default)]
    pub hold: bool,
    /// The client's connection timeout, in milliseconds.
    #[serde(default = "Connect::default_timeout_ms")]
    pub timeout_ms: u32,
    /// Continue with the next step once the first SYN is sent.
    #[serde(default)]
    pub background: bool,
    /// Extension headers before the TCP header of every packet it sends, with IPv6.
    #[serde(default)]
    pub extension_headers: Vec<ExtensionHeader>,
    /// The sequence number of its SYNs; by default its TCP chooses one.
    pub sequence: Option<u32>,
}

/// A header between the IPv6 and the TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtensionHeader {
    /// Options for every node on the path.
    HopByHop,
    /// Options for the destination node.
    Destination,
}

/// Data on connections that are already open.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Talk {
    /// The client's name.
    pub client: String,
}

/// Fragments and truncated packets in which a reader of the usual offset finds a SYN to a NodePort, one of
/// each kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strays {
    /// The client's name.
    pub client: String,
    /// The service's name; needed only if there are several.
    pub to: Option<String>,
    /// The source port of the first packet; each further packet has the next port.
    pub source_port: u16,
}

impl Connect {
    const fn default_timeout_ms() -> u32 {
        2500
    }

    /// Its source ports, each of them once.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let first = self.source_port;
        (0..self.count).map(move |nth| first.saturating_add(nth))
    }

    /// The source ports of its attempts, in order.
    pub fn source_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let times = usize::from(self.times);
        self.ports()
            .flat_map(move |port| std::iter::repeat_n(port, times))
    }
}

/// How a client closes its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Close {
    /// With FIN; its port is then in `TIME_WAIT`.
    Fin,
    /// With a RST (`SO_LINGER` 0).
    Rst,
}

/// The SYNs of a client without a TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalfOpen {
    /// The number of identical SYNs, one second apart.
    #[serde(default = "HalfOpen::one")]
    pub syns: u8,
    /// The sequence number.
    #[serde(default = "HalfOpen::default_sequence")]
    pub sequence: u32,
    /// The value of the timestamp option; without one, the option is missing.
    pub timestamp: Option<u32>,
    /// The checksum is wrong, as if checksum offload had failed.
    #[serde(default)]
    pub bad_checksum: bool,
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self {
            syns: Self::one(),
            sequence: Self::default_sequence(),
            timestamp: None,
            bad_checksum: false,
        }
    }
}

impl HalfOpen {
    const fn one() -> u8 {
        1
    }

    const fn default_sequence() -> u32 {
        1_000_000
    }
}

/// A pod as a real server of a service, from this step on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The service's name; needed only if there are several.
    pub service: Option<String>,
    /// The pod's name.
    pub pod: String,
    /// Its weight from this step on.
    #[serde(default = "one")]
    pub weight: u16,
}

/// A pod that is no longer a real server of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// The service's name; needed only if there are several.
    pub service: Option<String>,
    /// The pod's name.
    pub pod: String,
}

/// A shell command and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIn {
    /// The name of a pod, a client or another node, or [`RunIn::NODE`].
    #[serde(rename = "where")]
    pub place: String,
    /// The shell command.
    pub line: String,
}

impl RunIn {
    /// The place of the node itself.
    pub const NODE: &str = "node";
}

/// A pod's new behaviour.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The pod's name.
    pub name: String,
    /// Its behaviour from this step on.
    pub behaviour: Behaviour,
}

const fn one() -> u16 {
    1
}
