//! A finding as it is sent to the screen: an owned copy of everything that any tab may show.

use std::net::SocketAddr;

use tracer_common::hook::Hook;

use super::flow_detail::FlowDetail;
use crate::{
    decode::event::Payload,
    diagnose::{Dataplane, Diagnosis, cause::Cause, evidence},
    facts::Facts,
    finding::Finding,
    flow::{fate::Fate, model::Flow},
};

/// A flow whose fate is known or has changed.
#[derive(Clone, Debug)]
pub struct FlowUpdate {
    /// The flow's number.
    pub id: u64,
    /// Time of its first SYN, monotonic nanoseconds.
    pub start_ns: u64,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The address and port that the client connects to.
    pub node: SocketAddr,
    /// The backend's address and port, once known.
    pub backend: Option<SocketAddr>,
    /// The service's name, if known.
    pub service: Option<String>,
    /// The flow's fate so far.
    pub fate: Fate,
    /// The flow's cause, if it has one.
    pub cause: Option<Cause>,
    /// The dataplane that did the DNAT.
    pub dataplane: Option<Dataplane>,
    /// From the first SYN to the client's ACK, nanoseconds.
    pub connect_ns: Option<u64>,
    /// Time that the client lost with all its SYNs, nanoseconds.
    pub lost_ns: u64,
    /// The cause, other than the flow's own, that cost the most time, and that time in nanoseconds.
    pub other_cause: Option<(Cause, u64)>,
    /// SYNs on the wire.
    pub syns: usize,
    /// The previous flow from the same client port.
    pub earlier: Option<u64>,
    /// The place where its last packet was dropped.
    pub drop_site: Option<DropSite>,
    /// The hook of each step; empty while the flow is pending, so that records are counted once.
    pub hooks: Vec<Hook>,
    /// Path and evidence.
    pub detail: FlowDetail,
}

/// A place where packets are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSite {
    /// The kernel function.
    pub function: String,
    /// The kernel's drop reason; empty if it gives none.
    pub reason: String,
    /// The rule that dropped the packet; empty if none is known.
    pub rule: String,
}

impl FlowUpdate {
    /// Copies a finding.
    #[must_use]
    pub fn of(finding: &Finding<'_>) -> Self {
        let Finding {
            flow,
            fate,
            diagnosis,
            facts,
            ..
        } = *finding;
        Self {
            id: flow.id,
            start_ns: flow.start_ns(),
            client: flow.client(),
            node: flow.node(),
            backend: flow.backend(),
            service: finding.service().map(str::to_owned),
            fate,
            cause: diagnosis.cause,
            dataplane: diagnosis.dataplane,
            connect_ns: flow.connect_ns(),
            lost_ns: finding.lost_ns(),
            other_cause: other_cause(diagnosis),
            syns: flow.attempts.len(),
            earlier: flow.earlier.as_ref().map(|earlier| earlier.id),
            drop_site: finding
                .is_failure()
                .then(|| drop_site(flow, diagnosis, facts))
                .flatten(),
            hooks: match fate {
                Fate::Pending => Vec::new(),
                _ => flow.steps.iter().map(|step| step.event.hook).collect(),
            },
            detail: FlowDetail::of(flow, fate, diagnosis, facts),
        }
    }
}

/// The cause, other than the flow's own, that cost the most time.
fn other_cause(diagnosis: &Diagnosis) -> Option<(Cause, u64)> {
    let lost = diagnosis.lost_by_cause().into_iter();
    lost.filter(|(cause, lost)| Some(*cause) != diagnosis.cause && *lost > 0)
        .max_by_key(|(_, lost)| *lost)
}

/// The place where the last packet of a failed flow was dropped.
fn drop_site(flow: &Flow, diagnosis: &Diagnosis, facts: &Facts) -> Option<DropSite> {
    let (step, drop) = flow
        .steps
        .iter()
        .rev()
        .find_map(|step| match &step.event.payload {
            Payload::Drop(drop) => Some((step, drop)),
            _ => None,
        })?;
    Some(DropSite {
        function: evidence::function(&evidence::location(step, facts)).to_owned(),
        reason: facts.drop_reasons.get(&drop.reason).cloned().unwrap_or_default(),
        rule: diagnosis
            .blame
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    })
}
