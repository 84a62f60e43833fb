//! A scenario: kernel facts, topology, traffic and expectation, as read from one TOML file.
//!
//! The file reads in that order, from top to bottom. It is input for the lab and, at the same time, the entry of
//! the catalogue that shows a user what a cause looks like, so nothing in it is left to be guessed: unknown keys
//! are refused, and [`Scenario::from_toml`] checks that names, ports and counts fit together.

mod catalogue;
mod check;
mod cost;
mod process;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

pub use catalogue::{Named, load, select};
pub use process::{Check, Process};
pub use words::{CAUSES, Cause, Fate, Flavour, KernelName, Span};

/// One scenario file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What happens, in one line.
    pub title: String,
    /// A sentence or two for the catalogue: how a user meets this, and why it happens.
    pub story: String,
    /// The kernels on which the expectation holds.
    pub kernels: Vec<KernelName>,
    /// Whether the test plays it on every one of its kernels, not on one of them only.
    #[serde(default)]
    pub core: bool,
    /// After so many seconds it has failed; an emulated kernel takes its time to attach a tracer.
    #[serde(default = "Scenario::default_limit_s")]
    pub limit_s: u32,
    /// Sysctls of the node beyond what kube-proxy sets (see [`crate::guest`]), set before the topology is built.
    #[serde(default)]
    pub facts: BTreeMap<String, Value>,
    /// Who is there.
    pub topology: Topology,
    /// How tracer is run, where that is not as always.
    #[serde(default)]
    pub tracer: Process,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// What tracer must say.
    pub expect: Expect,
}

/// The value of a sysctl.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a whole number or a string as the value of a sysctl"
)]
pub enum Value {
    /// A number, as most are.
    Number(i64),
    /// Several numbers, or a word.
    Text(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The node (address [`Topology::NODE`], the guest's own netns), its clients, its pods and their services.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Clients, each in a netns of its own.
    pub clients: Vec<Client>,
    /// Pods on the node, each in a netns of its own.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// Services with a NodePort, in kube-proxy's IPVS mode.
    pub services: Vec<Service>,
    /// Rules of somebody else on the node, for `nft -f`.
    pub nft: Option<String>,
}

impl Topology {
    /// The node's address towards the clients, and so of every NodePort.
    pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

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

/// A client of the node, outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its address, in the node's network 10.0.0.0/24.
    pub address: Ipv4Addr,
}

/// A pod of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address; the node has `.1` of the same /24 on the other end of the pod's veth.
    pub address: Ipv4Addr,
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

/// A service with a NodePort.
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
    /// Masquerade its clients (`externalTrafficPolicy: Cluster`) or let the pods see them (`Local`).
    #[serde(default = "Service::default_masquerade")]
    pub masquerade: bool,
    /// The real servers that IPVS has for it at first.
    #[serde(default)]
    pub real_servers: Vec<RealServer>,
}

impl Service {
    const fn default_masquerade() -> bool {
        true
    }
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

/// A pod as a real server of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServer {
    /// The pod's name.
    pub pod: String,
    /// Its weight; 0 is a pod that drains.
    #[serde(default = "one")]
    pub weight: u16,
}

/// One thing that happens. In the file: a table with one key, the name of the step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A client connects.
    Connect(Connect),
    /// Several clients connect at the same time; the step is over when all of them are done.
    Parallel(Vec<Connect>),
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
    /// Nothing happens for so many milliseconds.
    SleepMs(u32),
    /// A sentence for those who watch.
    Say(String),
}

/// Connection attempts of one client, one after the other.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// The client's name.
    pub client: String,
    /// The service's name; needed only if there are several.
    pub to: Option<String>,
    /// The source port of the first attempt.
    pub source_port: u16,
    /// From so many source ports, each one higher than the last.
    #[serde(default = "one")]
    pub count: u16,
    /// So many times from each of them, before the next.
    #[serde(default = "one")]
    pub times: u16,
    /// A pause after each attempt, in milliseconds.
    #[serde(default)]
    pub pause_ms: u32,
    /// Keep the connections open until the scenario is over.
    #[serde(default)]
    pub hold: bool,
    /// How long the client waits for its connection, in milliseconds.
    #[serde(default = "Connect::default_timeout_ms")]
    pub timeout_ms: u32,
    /// Go on with the next step as soon as the first SYN is on its way.
    #[serde(default)]
    pub background: bool,
}

impl Connect {
    const fn default_timeout_ms() -> u32 {
        2500
    }

    /// The source ports of its attempts, in order.
    pub fn source_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let (times, first) = (usize::from(self.times), self.source_port);
        (0..self.count).flat_map(move |nth| std::iter::repeat_n(first.saturating_add(nth), times))
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

/// A pod's new behaviour.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The pod's name.
    pub name: String,
    /// What it does from now on.
    pub behaviour: Behaviour,
}

/// What tracer must say of the scenario's flows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// What is expected of each flow that is not in `flows`; without it every flow must be there.
    pub default: Option<Expected>,
    /// What is expected of single flows.
    #[serde(default)]
    pub flows: Vec<ExpectedFlow>,
    /// Counts over all flows.
    pub totals: Option<Totals>,
}

/// What is expected of one flow, or of the same attempt from several ports, and which.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ExpectedFlow {
    /// The client's name.
    pub client: String,
    /// Its source port, or the first one.
    pub source_port: u16,
    /// So many source ports, each one higher than the last.
    #[serde(default = "one")]
    pub count: u16,
    /// Which attempt from this port, from 1.
    #[serde(default = "one")]
    pub occurrence: u16,
    /// What is expected of it.
    #[serde(flatten)]
    pub expected: Expected,
    /// Keys that mean nothing. serde cannot refuse them by itself where it flattens, so the check does.
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// What is expected of a flow.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Its fate.
    pub fate: Fate,
    /// Its cause; left out: it must have none.
    pub cause: Option<Cause>,
    /// The pod that it must have gone to. Where the pod answered, what tracer says is held against the answer
    /// anyway.
    pub backend: Option<String>,
    /// How many SYNs.
    pub syns: Option<Span>,
    /// How much time was lost.
    pub stall_ms: Option<Span>,
    /// How long the handshake took.
    pub connect_ms: Option<Span>,
    /// What the evidence must hold, each at least once.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
}

/// A piece of evidence that must be there: both texts must occur in one piece, whatever their case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Part of what was read.
    pub what: Option<String>,
    /// Part of its value.
    pub value: Option<String>,
}

/// Counts over all flows of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// All flows.
    pub flows: usize,
    /// By fate; a fate that is not named must not occur.
    pub by_fate: BTreeMap<Fate, usize>,
    /// By cause; a cause that is not named must not occur.
    #[serde(default)]
    pub by_cause: BTreeMap<Cause, usize>,
}

/// One connection attempt of a scenario, and so one flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The client's name.
    pub client: String,
    /// Its source port.
    pub source_port: u16,
    /// Which attempt from this port, from 1.
    pub occurrence: u16,
}

impl Scenario {
    const fn default_limit_s() -> u32 {
        120
    }

    /// After this time it has failed.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        Duration::from_secs(self.limit_s as u64)
    }

    /// Reads and checks a scenario.
    pub fn from_toml(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        check::check(&scenario).context("the scenario contradicts itself")?;
        Ok(scenario)
    }

    /// Whether its expectation holds on this kernel.
    #[must_use]
    pub fn runs_on(&self, kernel: &KernelName) -> bool {
        self.kernels.contains(kernel)
    }

    /// The NodePort of each of its services.
    #[must_use]
    pub fn node_ports(&self) -> Vec<u16> {
        self.topology
            .services
            .iter()
            .map(|service| service.node_port)
            .collect()
    }

    /// All of its connects in the order of the file, those of one parallel step together.
    pub fn connects(&self) -> impl Iterator<Item = &Connect> {
        self.steps.iter().flat_map(|step| match step {
            Step::Connect(connect) => std::slice::from_ref(connect),
            Step::Parallel(connects) => connects.as_slice(),
            _ => &[],
        })
    }

    /// All of its connection attempts; each of them is one flow for tracer.
    #[must_use]
    pub fn attempts(&self) -> Vec<(Attempt, &Connect)> {
        let mut seen: BTreeMap<(&str, u16), u16> = BTreeMap::new();
        let mut attempts = Vec::new();
        for connect in self.connects() {
            for source_port in connect.source_ports() {
                let occurrence = seen.entry((&connect.client, source_port)).or_default();
                *occurrence += 1;
                let attempt = Attempt {
                    client: connect.client.clone(),
                    source_port,
                    occurrence: *occurrence,
                };
                attempts.push((attempt, connect));
            }
        }
        attempts
    }

    /// What is expected of an attempt.
    #[must_use]
    pub fn expected(&self, attempt: &Attempt) -> Option<&Expected> {
        let own = self.expect.flows.iter().find(|flow| flow.is_of(attempt));
        own.map(|flow| &flow.expected).or(self.expect.default.as_ref())
    }
}

impl ExpectedFlow {
    /// Whether this is about that attempt.
    #[must_use]
    pub fn is_of(&self, attempt: &Attempt) -> bool {
        let nth_port = attempt.source_port.checked_sub(self.source_port);
        self.client == attempt.client
            && nth_port.is_some_and(|nth| nth < self.count)
            && self.occurrence == attempt.occurrence
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            client,
            source_port,
            occurrence,
        } = self;
        write!(f, "{client}:{source_port} (attempt {occurrence})")
    }
}

const fn one() -> u16 {
    1
}
