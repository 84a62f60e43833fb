//! Why a flow ended as it did: from its steps and the node's facts to a cause, with the evidence that proves it.
//!
//! Pure, like [`crate::flow`]. A cause is given only if what the kernel was seen to do leaves no other; what is left
//! is [`cause::Cause::Unknown`] with what is known. No rule asks for the kernel's version.

mod backend;
mod case;
pub mod catalogue;
pub mod cause;
mod client;
mod conntrack;
mod device;
pub mod evidence;
mod invalid;
mod ipvs;
mod lost;
mod nat;
mod neigh;
mod netfilter;
mod old_connection;
mod pinned;
mod policy;
mod return_path;
mod route;
mod rule;
pub mod stack;
mod tcp;
mod timewait;
mod tunnel;
pub mod words;

use tracer_common::{hook::Hook, tcp::Part};

use self::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::Evidence,
};
use crate::{
    decode::event::Payload,
    facts::Facts,
    flow::{fate::Fate, model::Flow},
};

/// Who translated the NodePort to a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataplane {
    /// IPVS.
    Ipvs,
    /// A rule of iptables, in a legacy table or written by `iptables-nft`.
    Iptables,
    /// A rule of nf_tables.
    Nftables,
    /// Nobody: a socket on the node itself.
    Local,
}

impl Dataplane {
    /// The name that users see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Local => "local",
        }
    }
}

/// What can be said about a flow.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Why; `None` where nothing went wrong or nothing is decided.
    pub cause: Option<Cause>,
    /// What happened, in one or two sentences about this flow.
    pub explanation: String,
    /// What to do about it.
    pub advice: Option<&'static str>,
    /// What proves it.
    pub evidence: Vec<Evidence>,
    /// Who did the DNAT; `None` if that was not seen.
    pub dataplane: Option<Dataplane>,
}

/// What is known of a flow of which nothing is decided yet.
fn pending(flow: &Flow, facts: &Facts) -> String {
    let syns = flow.sent().count();
    let syns = match syns {
        1 => "1 SYN".to_owned(),
        syns => format!("{syns} SYNs"),
    };
    let discarded = flow
        .steps
        .iter()
        .rfind(|step| step.event.part == Part::Syn && matches!(step.event.payload, Payload::Drop(_)));
    match discarded {
        Some(step) if flow.is_on_node(&step.event) => format!(
            "Nothing is decided yet, but this node has discarded a SYN, in {}: {syns} so far.",
            evidence::location(step, facts)
        ),
        _ => format!("The handshake is still going on: {syns} so far."),
    }
}

/// Explains a flow.
#[must_use]
pub fn diagnose(flow: &Flow, fate: Fate, facts: &Facts) -> Diagnosis {
    let dataplane = dataplane(flow);
    let found = Case::of(flow, fate, facts).and_then(|case| Some(doubt(&case, explain_any(&case)?)));
    let Some((cause, proof)) = found else {
        return Diagnosis {
            cause: None,
            explanation: match fate {
                Fate::Established => "The handshake finished at the first try.".to_owned(),
                _ => pending(flow, facts),
            },
            advice: None,
            evidence: Vec::new(),
            dataplane,
        };
    };
    Diagnosis {
        cause: Some(cause),
        explanation: proof.explanation,
        advice: catalogue::row(cause).and_then(|row| row.advice),
        evidence: of_family(flow, proof.evidence),
        dataplane,
    }
}

/// Explains a case by the SYN that tells, or by a later one that met the same end.
fn explain_any(case: &Case<'_>) -> Option<(Cause, Proof)> {
    let first = explain(case)?;
    let is_known = |found: &(Cause, Proof)| found.0 != Cause::Unknown;
    if is_known(&first) {
        return Some(first);
    }
    let later = case.again().find_map(|again| explain(&again).filter(is_known));
    Some(later.map_or(first, |(cause, mut proof)| {
        proof.evidence.push(Evidence::seen(
            "the SYN before it",
            "was discarded at the same place, when tracer did not look at this yet",
            Hook::KfreeSkb,
        ));
        (cause, proof)
    }))
}

/// The rows name hooks by their role; people get the name of the function that was hooked.
fn of_family(flow: &Flow, evidence: Vec<Evidence>) -> Vec<Evidence> {
    if flow.original.is_v6() {
        evidence.into_iter().map(Evidence::of_ipv6).collect()
    } else {
        evidence
    }
}

/// The first row of the catalogue that finds its proof.
fn explain(case: &Case<'_>) -> Option<(Cause, Proof)> {
    let (cause, mut proof) = catalogue::rows().find_map(|row| Some((row.cause, (row.find)(case)?)))?;
    if let Some(outer) = case.discarded.and_then(|step| step.event.outer) {
        proof.evidence.push(Evidence::seen(
            "inside a tunnel",
            outer.to_string(),
            Hook::KfreeSkb,
        ));
    }
    let answer_lost = case.situation == Situation::Dropped
        && cause != Cause::ReturnNotTranslated
        && case.discarded.is_some_and(|step| step.event.part == Part::SynAck);
    Some(if answer_lost {
        return_path::dropped(cause, proof)
    } else {
        (cause, proof)
    })
}

/// Records were lost while the flow went on, or probes were skipped for the SYN that tells: what was not seen proves
/// nothing then, and the flow says so.
fn doubt(case: &Case<'_>, (cause, mut proof): (Cause, Proof)) -> (Cause, Proof) {
    // What these miss, a tracepoint would have seen; the others miss what probes see.
    let by_tracepoints = matches!(cause, Cause::ClientSilent | Cause::ReturnBypassed);
    let by_probes = matches!(
        cause,
        Cause::BackendSilent
            | Cause::BackendSlow
            | Cause::ConntrackPinned
            | Cause::TcpAcceptQueueFull
            | Cause::TcpSynQueueFull
    );
    if case
        .facts
        .lost_ns
        .is_some_and(|lost| lost >= case.flow.start_ns())
    {
        proof
            .explanation
            .push_str(" Records were lost meanwhile, so this may be incomplete.");
        proof.evidence.push(Evidence::read(
            "records lost",
            "while this flow went on",
            "ring buffer",
        ));
        let is_doubtful = by_tracepoints || by_probes;
        return (if is_doubtful { Cause::Unknown } else { cause }, proof);
    }
    // Tracepoints are not skipped.
    let skipped = case.steps().find(|step| step.probes_skipped);
    let Some(step) = skipped.filter(|_| by_probes || cause == Cause::Unknown) else {
        return (cause, proof);
    };
    proof.explanation.push_str(
        " The kernel skipped tracer's probes for a while, because another one was at work on the same CPU, so this may \
         be incomplete.",
    );
    proof.evidence.push(Evidence::seen(
        "probes skipped",
        format!("from {} on", evidence::place(step)),
        step.event.hook,
    ));
    (Cause::Unknown, proof)
}

fn dataplane(flow: &Flow) -> Option<Dataplane> {
    if flow.steps.iter().any(|step| {
        matches!(
            step.event.hook,
            Hook::IpvsSchedule | Hook::IpvsLeave | Hook::IpvsReply | Hook::IpvsExpireNow
        ) || step.event.hook.is_ipvs_xmit()
            || matches!(&step.event.payload, Payload::IpvsConn(conn) if conn.conn != 0)
    }) {
        return Some(Dataplane::Ipvs);
    }
    // The last rule that translated counts: a SYN that is sent again may meet other rules.
    let by_rule = flow.steps.iter().rev().find_map(|step| match step.event.hook {
        Hook::XtDnat | Hook::XtDnatV0 => Some(Dataplane::Iptables),
        Hook::NftNat => Some(Dataplane::Nftables),
        _ => None,
    });
    if by_rule.is_some() {
        return by_rule;
    }
    let local = flow.steps.iter().any(|step| {
        matches!(step.event.hook, Hook::TcpConnRequest | Hook::TcpSendReset)
            && step.event.netns == flow.netns
            && step.event.tuple == flow.original
    });
    local.then_some(Dataplane::Local)
}
