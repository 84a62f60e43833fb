//! What happens in a scenario, step by step.

use std::collections::BTreeMap;

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
