//! What happens in a scenario, step by step.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::{Behaviour, Value};

/// One thing that happens. In the file: a table with one key, the name of the step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A client connects.
    Connect(Connect),
    /// Several clients connect at the same time; the step is over when all of them are done.
    Parallel(Vec<Connect>),
    /// A client says a line on each connection that it holds.
    Talk(Talk),
    /// A client sends packets that look like SYNs and are none.
    Strays(Strays),
    /// A real server's weight changes.
    SetWeight(Membership),
    /// A pod becomes a real server of a service.
    AddRealServer(Membership),
    /// A pod is taken out of a service.
    RemoveRealServer(Removal),
    /// A pod changes its behaviour.
    Pod(Change),
    /// Sysctls of the node change.
    Sysctl(BTreeMap<String, Value>),
    /// Rules are loaded on the node by `nft -f`.
    Nft(String),
    /// The node's shell runs a line. Whatever it changes there (rules, routes, addresses, devices, qdiscs, sysctls of
    /// the network, modules, processes) is put back when the scenario is over.
    Run(String),
    /// The shell runs a line in the netns of a pod or a client.
    RunIn(RunIn),
    /// Nothing happens until tracer says this, in a line of its output or of its standard error.
    TracerSays(String),
    /// Nothing happens until tracer has told the fates of so many flows, all flows so far counted: what it looks at when
    /// it tells them must not change before.
    FatesTold(usize),
    /// Nothing happens for so many milliseconds.
    SleepMs(u32),
    /// A sentence for those who watch.
    Say(String),
}

/// Connection attempts of one client, one after the other or several at once.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// The name of the client, or of a pod or another node that is one for once.
    pub client: String,
    /// The service's name; needed only if there are several.
    pub to: Option<String>,
    /// Which of the node's addresses it connects to; left out: the first one.
    pub to_address: Option<IpAddr>,
    /// The source port of the first attempt.
    pub source_port: u16,
    /// From so many source ports, each one higher than the last.
    #[serde(default = "one")]
    pub count: u16,
    /// So many times from each of them, before the next.
    #[serde(default = "one")]
    pub times: u16,
    /// From so many of its ports at the same time.
    #[serde(default = "one")]
    pub at_once: u16,
    /// A pause after each attempt, in milliseconds.
    #[serde(default)]
    pub pause_ms: u32,
    /// The TTL of the client's packets.
    pub ttl: Option<u8>,
    /// The largest segment that the client asks for.
    pub mss: Option<u16>,
    /// A client that is not connected after so many milliseconds closes its socket. What arrives for it then is
    /// answered with RST.
    pub abort_ms: Option<u32>,
    /// The client reads the server's first line only, and is the one who closes. Left out: it waits for the server to
    /// close.
    pub close: Option<Close>,
    /// The client has no TCP: it sends SYNs, and says nothing to what comes back.
    pub half_open: Option<HalfOpen>,
    /// Keep the connections open until the scenario is over.
    #[serde(default)]
    pub hold: bool,
    /// How long the client waits for its connection, in milliseconds.
    #[serde(default = "Connect::default_timeout_ms")]
    pub timeout_ms: u32,
    /// Go on with the next step as soon as the first SYN is on its way.
    #[serde(default)]
    pub background: bool,
    /// Extension headers before the TCP header of every packet that it sends, with IPv6.
    #[serde(default)]
    pub extension_headers: Vec<ExtensionHeader>,
    /// The sequence number of its SYNs; left out: its TCP chooses one.
    pub sequence: Option<u32>,
}

/// A header of IPv6 between its own and that of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtensionHeader {
    /// Options for every node on the way.
    HopByHop,
    /// Options for the node at its end.
    Destination,
}

/// Data on connections that have been there for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Talk {
    /// The client's name.
    pub client: String,
}

/// Fragments and cut packets in which a reader who looks at the usual place finds a SYN to a NodePort, each kind once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strays {
    /// The client's name.
    pub client: String,
    /// The service's name; needed only if there are several.
    pub to: Option<String>,
    /// The source port of the first; each has one higher than the last.
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
    /// In good order; its port is then in `TIME_WAIT`.
    Fin,
    /// With an RST (`SO_LINGER` 0).
    Rst,
}

/// What a client without a TCP sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalfOpen {
    /// So many SYNs, all the same, a second apart.
    #[serde(default = "HalfOpen::one")]
    pub syns: u8,
    /// The sequence number.
    #[serde(default = "HalfOpen::default_sequence")]
    pub sequence: u32,
    /// The value of the timestamp option; left out: the option is not there.
    pub timestamp: Option<u32>,
    /// Its checksum is wrong, as a device may leave it that was to make it.
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

/// A pod as a real server of a service, from now on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The service's name; needed only if there are several.
    pub service: Option<String>,
    /// The pod's name.
    pub pod: String,
    /// Its weight from now on.
    #[serde(default = "one")]
    pub weight: u16,
}

/// A pod that is no real server of a service any more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// The service's name; needed only if there are several.
    pub service: Option<String>,
    /// The pod's name.
    pub pod: String,
}

/// A line for the shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunIn {
    /// The name of a pod, a client or another node, or [`RunIn::NODE`].
    #[serde(rename = "where")]
    pub place: String,
    /// What is run there.
    pub line: String,
}

impl RunIn {
    /// The place that is the node itself.
    pub const NODE: &str = "node";
}

/// A pod's new behaviour.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The pod's name.
    pub name: String,
    /// What it does from now on.
    pub behaviour: Behaviour,
}

const fn one() -> u16 {
    1
}
