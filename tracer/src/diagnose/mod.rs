//! Why a flow ended as it did: from its steps and the node's facts to a cause, with the evidence that proves it.
//!
//! Pure, like [`crate::flow`]. tracer names a cause only if what it saw the kernel do leaves no other; the rest is
//! [`cause::Cause::Unknown`], with what is known. No rule looks at the kernel's version.

mod advice;
mod attempt;
mod backend;
pub mod blame;
pub mod bpf;
mod bridge;
mod case;
pub mod catalogue;
pub mod cause;
mod client;
mod conntrack;
mod dataplane;
mod device;
mod diagnosis;
pub mod egress;
pub mod evidence;
mod explain;
mod ipvs;
mod nat;
mod neigh;
mod netfilter;
mod policy;
mod return_path;
mod route;
pub mod row;
mod rule;
mod service;
pub mod stack;
mod tcp;
mod tunnel;
mod unknown;
pub mod words;

use tracer_common::tcp::Part;

pub use self::{
    attempt::Attempt,
    dataplane::Dataplane,
    diagnosis::{Diagnosis, is_failure},
};
use self::{evidence::Evidence, explain::Found};
use crate::{
    decode::event::Payload,
    facts::Facts,
    flow::{
        fate::Fate,
        model::{Flow, Step},
        open,
    },
};

/// Explains a flow, and each of its SYNs.
#[must_use]
pub fn diagnose(flow: &Flow, fate: Fate, facts: &Facts) -> Diagnosis {
    let dataplane = Dataplane::of(flow);
    let (attempts, found) = attempt::all(flow, fate, facts);
    let Some(Found { cause, inner, proof }) = found else {
        return Diagnosis {
            cause: None,
            inner: None,
            explanation: match fate {
                Fate::Established => "The handshake finished without a retransmission.".to_owned(),
                _ => pending(flow, facts),
            },
            advice: None,
            evidence: Vec::new(),
            blame: None,
            dataplane,
            attempts,
        };
    };
    let general = |cause| Some(catalogue::row(cause)?.advice?.to_owned());
    Diagnosis {
        cause: Some(cause),
        inner,
        explanation: proof.explanation,
        // Advice about what dropped the SYN-ACK is more precise than that about the drop.
        advice: proof
            .advice
            .or_else(|| inner.and_then(general))
            .or_else(|| general(cause)),
        evidence: with_hook_names(flow, proof.evidence),
        blame: proof.blame.filter(|blame| !blame.is_empty()),
        dataplane,
        attempts,
    }
}

/// The explanation of a flow that is not decided yet.
fn pending(flow: &Flow, facts: &Facts) -> String {
    let syns = words::count(flow.sent().count() as u64, "SYN");
    if flow.is_evicted {
        return format!("Not decided: {syns} before tracer evicted the flow to make room for others.");
    }
    if let Some(step) = open::held(flow) {
        return format!("Not decided yet: {syns} so far, and {}.", held(step));
    }
    let dropped = flow
        .steps
        .iter()
        .rfind(|step| step.event.part == Part::Syn && matches!(step.event.payload, Payload::Drop(_)));
    match dropped {
        Some(step) if flow.is_on_node(&step.event) => format!(
            "Not decided yet: {syns} so far, and this node dropped one in {}.",
            evidence::location(step, facts)
        ),
        _ => format!("The handshake is in progress: {syns} so far."),
    }
}

/// The holder of a queued packet, as part of a sentence.
fn held(step: &Step) -> String {
    let packet = match step.event.part {
        Part::SynAck => "SYN-ACK",
        _ => "SYN",
    };
    let device = step
        .event
        .dev
        .get()
        .unwrap_or_else(|| "an unknown device".to_owned());
    match &step.event.payload {
        Payload::Neighbour(entry) if entry.address.is_unset() => {
            format!("the {packet} is queued on {device} until ARP/ND resolves its next hop")
        }
        Payload::Neighbour(entry) => {
            format!(
                "the {packet} is queued on {device} until ARP/ND resolves {}",
                entry.address.ip()
            )
        }
        _ => format!("a rule queued the {packet} (NFQUEUE), and the program has not returned a verdict"),
    }
}

/// Rows name hooks by their role; people get the name of the function that was hooked.
fn with_hook_names(flow: &Flow, evidence: Vec<Evidence>) -> Vec<Evidence> {
    if flow.original.is_v6() {
        evidence.into_iter().map(Evidence::of_ipv6).collect()
    } else {
        evidence
    }
}
