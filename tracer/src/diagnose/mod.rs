//! Why a flow ended as it did: from its steps and the node's facts to a cause, with the evidence that proves it.
//!
//! Pure, like [`crate::flow`]. A cause is named only if what the kernel was seen to do leaves no other; the rest is
//! [`cause::Cause::Unknown`], with what is known. No rule looks at the kernel's version.

mod advice;
mod backend;
pub mod blame;
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

use tracer_common::{hook::Hook, tcp::Part};

use self::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{Evidence, Key},
    row::Absence,
};
pub use self::{
    dataplane::Dataplane,
    diagnosis::{Diagnosis, is_failure},
};
use crate::{
    decode::event::Payload,
    facts::Facts,
    flow::{fate::Fate, model::Flow},
};

/// A cause that was found, with its proof.
struct Found {
    cause: Cause,
    /// Why the SYN-ACK was dropped.
    inner: Option<Cause>,
    proof: Proof,
}

/// Explains a flow.
#[must_use]
pub fn diagnose(flow: &Flow, fate: Fate, facts: &Facts) -> Diagnosis {
    let dataplane = Dataplane::of(flow);
    let found = Case::of(flow, fate, facts).and_then(|case| Some(check_gaps(&case, explain(&case)?)));
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
    }
}

/// What is known of a flow that is not decided yet.
fn pending(flow: &Flow, facts: &Facts) -> String {
    let syns = words::count(flow.sent().count() as u64, "SYN");
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

/// Explains a case by the deciding SYN, or by a later one that was dropped at the same place.
fn explain(case: &Case<'_>) -> Option<Found> {
    let first = detect(case)?;
    let is_known = |found: &Found| found.cause != Cause::Unknown;
    if is_known(&first) {
        return Some(first);
    }
    let later = case.later().find_map(|later| detect(&later).filter(is_known));
    Some(later.map_or(first, |mut found| {
        found.proof.evidence.push(Evidence::seen(
            Key::EarlierSyn,
            "dropped at the same place, before the hooks that show the cause were attached",
            Hook::KfreeSkb,
        ));
        found
    }))
}

/// The first row of the catalogue that finds its proof.
fn detect(case: &Case<'_>) -> Option<Found> {
    let is_established = case.situation == Situation::Established;
    let mut rows = catalogue::rows().filter(|row| !is_established || row.cause.is_wrong_place());
    let (cause, mut proof) = rows.find_map(|row| Some((row.cause, (row.detect)(case)?)))?;
    if let Some(outer) = case.dropped.and_then(|step| step.event.outer) {
        proof
            .evidence
            .push(Evidence::seen(Key::Outer, outer.to_string(), Hook::KfreeSkb));
    }
    let is_answer_dropped = case.situation == Situation::Dropped
        && cause != Cause::ReturnNotTranslated
        && case.dropped.is_some_and(|step| step.event.part == Part::SynAck);
    Some(if is_answer_dropped {
        Found {
            cause: Cause::ReturnDropped,
            inner: Some(cause),
            proof: return_path::dropped(cause, proof),
        }
    } else {
        Found {
            cause,
            inner: None,
            proof,
        }
    })
}

/// Rows name hooks by their role; people get the name of the function that was hooked.
fn with_hook_names(flow: &Flow, evidence: Vec<Evidence>) -> Vec<Evidence> {
    if flow.original.is_v6() {
        evidence.into_iter().map(Evidence::of_ipv6).collect()
    } else {
        evidence
    }
}

/// Says so if records were lost during the flow, or probes were skipped for the deciding SYN. A cause that relies on what
/// may have been missed becomes unknown: what was not watched is not "did not happen".
fn check_gaps(case: &Case<'_>, mut found: Found) -> Found {
    let absence = catalogue::row(found.cause).map_or(Absence::Nothing, |row| row.absence);
    let unknown = |found: Found| Found {
        cause: Cause::Unknown,
        inner: None,
        ..found
    };
    if case
        .facts
        .lost_ns
        .is_some_and(|lost| lost >= case.flow.start_ns())
    {
        found
            .proof
            .explanation
            .push_str(" Records were lost during this flow, so this may be incomplete.");
        found.proof.evidence.push(Evidence::read(
            Key::RecordsLost,
            "during this flow",
            "ring buffer",
        ));
        return if absence == Absence::Nothing {
            found
        } else {
            unknown(found)
        };
    }
    // Tracepoints are not skipped.
    let skipped = case.steps().find(|step| step.probes_skipped);
    let Some(step) = skipped.filter(|_| absence == Absence::Probes || found.cause == Cause::Unknown) else {
        return found;
    };
    found.proof.explanation.push_str(
        " The kernel skipped tracer's probes for part of the path, because another kprobe was running on the same CPU, so \
         this may be incomplete.",
    );
    found.proof.evidence.push(Evidence::seen(
        Key::ProbesSkipped,
        format!("from {} on", evidence::place(step)),
        step.event.hook,
    ));
    unknown(found)
}
