//! Expectations: what tracer must report about a scenario's flows.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Attempt, Cause, Dataplane, Fate, Span};

/// The expected report of tracer about the scenario's flows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The expectation of each flow that is not in `flows`; without it, every flow must be listed there.
    pub default: Option<Expected>,
    /// The expectations of individual flows.
    #[serde(default)]
    pub flows: Vec<ExpectedFlow>,
    /// Counts over all flows.
    pub totals: Option<Totals>,
    /// The scenario has thousands of flows: they are counted by true and reported cause
    /// ([`crate::expect::Matrix`]), and a few of them may have been slowed by the machine.
    #[serde(default)]
    pub matrix: bool,
    /// A flood of SYNs runs beside the scenario's own connections. Its flows are not judged, and records may be lost.
    #[serde(default)]
    pub flood: bool,
}

/// The expectation of one flow, or of the same attempt from several ports.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ExpectedFlow {
    /// The client's name.
    pub client: String,
    /// Its source port, or the first of several.
    pub source_port: u16,
    /// The number of consecutive source ports.
    #[serde(default = "one")]
    pub count: u16,
    /// The attempt from this port, counted from 1.
    #[serde(default = "one")]
    pub occurrence: u16,
    /// The expectation.
    #[serde(flatten)]
    pub expected: Expected,
    /// Unknown keys. serde cannot reject them where it flattens, so the check does.
    #[serde(flatten)]
    pub(super) unknown: BTreeMap<String, toml::Value>,
}

/// The expectation of a flow.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Its fate.
    pub fate: Fate,
    /// Its cause; without one, it must have none.
    pub cause: Option<Cause>,
    /// The network between client and node may lose its packets, on either side of the handshake: its fate is
    /// `established` or not, and the only cause it may have is [`Expected::LOST`].
    #[serde(default)]
    pub lossy: bool,
    /// The pod it must have reached. Where a pod answered, tracer's report is checked against the answer in
    /// any case.
    pub backend: Option<String>,
    /// The dataplane that translated its address.
    pub dataplane: Option<Dataplane>,
    /// Its service with the namespace, as in kube-proxy's rules.
    pub service: Option<String>,
    /// The number of SYNs.
    pub syns: Option<Span>,
    /// The lost time.
    pub stall_ms: Option<Span>,
    /// The largest difference between the lost time and the client's wait, in milliseconds, where it must be
    /// smaller than usual.
    pub stall_off_ms: Option<f64>,
    /// The duration of the handshake.
    pub connect_ms: Option<Span>,
    /// Its attempts: one for each SYN that the client sends. If empty, they are not checked.
    #[serde(default)]
    pub attempts: Vec<ExpectedAttempt>,
    /// Evidence it must have, each at least once.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// Texts its path must contain, in this order: parts of a step's hook, device and note, each in a
    /// separate step.
    #[serde(default)]
    pub path: Vec<String>,
}

/// The expectation of one SYN of a flow.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedAttempt {
    /// Its cause; without one, it must have none.
    pub cause: Option<Cause>,
    /// The time it cost.
    pub lost_ms: Option<Span>,
}

/// A piece of evidence that must be present, with this key and this part of its value in one piece.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Its key, as in JSON; not its label, whose wording may change.
    pub key: Option<String>,
    /// Part of its value, ignoring case.
    pub value: Option<String>,
}

/// Counts over all flows of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// All flows.
    pub flows: usize,
    /// By fate; a fate that is not listed must not occur.
    pub by_fate: BTreeMap<Fate, usize>,
    /// By cause; a cause that is not listed must not occur.
    #[serde(default)]
    pub by_cause: BTreeMap<Cause, usize>,
}

impl Expected {
    /// The only cause that a lossy flow may have: the SYN-ACK left the node, and no ACK arrived.
    pub const LOST: &str = "client.silent";
}

impl ExpectedFlow {
    /// Whether this expectation is for the attempt.
    #[must_use]
    pub fn covers(&self, attempt: &Attempt) -> bool {
        let nth_port = attempt.source_port.checked_sub(self.source_port);
        self.client == attempt.client
            && nth_port.is_some_and(|nth| nth < self.count)
            && self.occurrence == attempt.occurrence
    }
}

const fn one() -> u16 {
    1
}
