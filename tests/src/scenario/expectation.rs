//! What tracer must say of a scenario's flows.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Attempt, Cause, Dataplane, Fate, Span};

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
    /// There are thousands of flows: they are counted by true and told cause ([`crate::expect::Matrix`]), and few of
    /// them may have been slowed down by the machine that all of it runs on.
    #[serde(default)]
    pub matrix: bool,
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
    pub(super) unknown: BTreeMap<String, toml::Value>,
}

/// What is expected of a flow.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Its fate.
    pub fate: Fate,
    /// Its cause; left out: it must have none.
    pub cause: Option<Cause>,
    /// The network between client and node may lose packets of it, and who loses which is not known: its fate is
    /// `established` or not, but nothing may be blamed for it but that ([`Expected::LOST`]).
    #[serde(default)]
    pub lossy: bool,
    /// The pod that it must have gone to. Where the pod answered, what tracer says is held against the answer
    /// anyway.
    pub backend: Option<String>,
    /// Who translated its address.
    pub dataplane: Option<Dataplane>,
    /// The service that it is for, with its namespace, as kube-proxy's rules tell.
    pub service: Option<String>,
    /// How many SYNs.
    pub syns: Option<Span>,
    /// How much time was lost.
    pub stall_ms: Option<Span>,
    /// The most that the time that was lost may be off from what the client waited, in milliseconds, where less than
    /// usual is asked for.
    pub stall_off_ms: Option<f64>,
    /// How long the handshake took.
    pub connect_ms: Option<Span>,
    /// What the evidence must hold, each at least once.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// What its path must hold, in this order: parts of a step's hook, device and note, each in a step of its own.
    #[serde(default)]
    pub path: Vec<String>,
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

impl Expected {
    /// The only cause that a flow may have of which the network loses packets: the answer went out, and no ACK came.
    pub const LOST: &str = "client.silent";
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

const fn one() -> u16 {
    1
}
