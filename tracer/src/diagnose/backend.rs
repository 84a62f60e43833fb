//! The SYN was delivered: what the backend did not do, or not in time.

use tracer_common::{hook::Hook, record::route, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    tcp, timewait,
};
use crate::{
    decode::event::{Payload, text},
    flow::model::Step,
};

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::BackendSilent,
        says: "The SYN was delivered to the backend, or left the node towards it, and no answer came.",
        proof: "The translated SYN was seen in the backend's network namespace, or handed to a device of the node; \
                nothing came back, and neither a listener nor anything else of TCP in the backend was seen to meet it. Or a listener \
                took it in, and its SYN-ACK was discarded before it left the backend's network namespace.",
        advice: Some(
            "The SYN was delivered: look at the pod (its own firewall, its CPU, a stopped process) or, if it runs on \
             another node, trace there.",
        ),
        occurs: "Every kernel and dataplane.",
        hooks: &[&[Hook::DevStartXmit], &[Hook::KfreeSkb], &[Hook::TcpConnRequest]],
        find: silent,
    },
    Row {
        cause: Cause::BackendSlow,
        says: "The SYN-ACK came, but later than the client's retransmission.",
        proof: "A listener took the first SYN in and no later one, and the first SYN-ACK was seen after a \
                retransmission.",
        advice: Some("Look at the load of the pod and of the node it runs on."),
        occurs: "Every kernel and dataplane, if the backend is on this node.",
        hooks: &[&[Hook::TcpConnRequest]],
        find: slow,
    },
];

fn silent(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let after = match case.situation {
        Situation::Silent if flow.synacks == 0 => "and nothing came back",
        Situation::Late if answered_later(case) => "and not answered; a later one was",
        _ => return None,
    };
    if let Some(kept) = tcp::kept(flow, case.attempt) {
        return answer_discarded_inside(case, kept, after);
    }
    let answered_otherwise = tcp::taken(flow, case.attempt).is_some()
        || tcp::refusal(flow, case.attempt).is_some()
        || tcp::thrown_away(case).is_some()
        || timewait::met(case).is_some();
    if answered_otherwise {
        return None;
    }
    let delivered = case.delivery()?;
    let which = match case.situation {
        Situation::Late => "The first SYN",
        _ => "The SYN",
    };
    let backend = flow
        .backend_of(case.attempt)
        .unwrap_or_else(|| delivered.event.tuple.destination());
    let place = evidence::place(delivered);
    let discarded = discarded_inside(case, delivered);
    let explanation = if lacks_address(case, delivered) {
        format!(
            "{which} was handed to {place}, {after}: that network namespace does not have the address {}, so the pod is gone, \
             or has another address by now.",
            backend.ip(),
        )
    } else if let Some(discarded) = discarded {
        format!(
            "{which} was handed to the backend {backend} ({place}) and discarded inside its network namespace, in {}{}, {after}.",
            evidence::location(discarded, case.facts),
            by_chain(case, discarded),
        )
    } else {
        format!("{which} was handed to the backend {backend} ({place}), {after}.")
    };
    let mut evidence = delivery_evidence(case, delivered);
    evidence.extend(
        discarded
            .into_iter()
            .flat_map(|step| evidence::discarded(step, case.facts)),
    );
    Some(Proof {
        explanation,
        evidence,
    })
}

/// The step at which the network namespace to which the SYN was delivered discarded it.
fn discarded_inside<'a>(case: &Case<'a>, delivered: &Step) -> Option<&'a Step> {
    case.steps().find(|step| {
        step.event.part == Part::Syn
            && matches!(step.event.payload, Payload::Drop(_))
            && !case.flow.is_on_node(&delivered.event)
            && step.event.netns == delivered.event.netns
    })
}

/// The chain of that namespace that dropped it, if it was seen.
fn by_chain(case: &Case<'_>, discarded: &Step) -> String {
    let chain = case.steps().find_map(|step| match &step.event.payload {
        Payload::Chain(chain) if step.event.netns == discarded.event.netns => Some(chain),
        _ => None,
    });
    match chain.map(|chain| (text(&chain.table), text(&chain.chain))) {
        Some((table, chain)) if !table.is_empty() => format!(" (table {table} chain {chain})"),
        Some((_, chain)) if !chain.is_empty() => format!(" (chain {chain})"),
        _ => String::new(),
    }
}

/// Was the SYN, in the netns to which it was delivered, one to be forwarded, which nobody does there?
fn lacks_address(case: &Case<'_>, delivered: &Step) -> bool {
    !case.flow.is_on_node(&delivered.event)
        && case.steps().any(|step| {
            matches!(&step.event.payload, Payload::Route(settings)
                if step.event.hook == Hook::RouteError
                    && settings.have & route::FORWARDING != 0
                    && settings.forwarding == 0)
                && step.event.part == Part::Syn
                && step.event.netns == delivered.event.netns
        })
}

/// A listener in the backend's own netns answered, and that netns discarded the answer.
fn answer_discarded_inside(case: &Case<'_>, taken: &Step, after: &str) -> Option<Proof> {
    let flow = case.flow;
    if flow.is_on_node(&taken.event) {
        return None;
    }
    let discarded = flow.steps.iter().find(|step| {
        step.event.part == Part::SynAck
            && matches!(step.event.payload, Payload::Drop(_))
            && step.netns == taken.netns
            && step.attempt >= taken.attempt
    })?;
    let mut evidence = vec![Evidence::seen(
        "listener took the SYN in",
        evidence::place(taken),
        Hook::TcpConnRequest,
    )];
    evidence.extend(evidence::discarded(discarded, case.facts));
    Some(Proof {
        explanation: format!(
            "The backend {} took the SYN and answered, but its SYN-ACK was discarded before it left the backend's own network \
             namespace, {after}.",
            taken.event.tuple.destination(),
        ),
        evidence,
    })
}

/// Was the first answer one to a later SYN than the first?
fn answered_later(case: &Case<'_>) -> bool {
    case.flow.answered_attempt().is_some_and(|attempt| attempt > 0)
}

fn slow(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Late || !answered_later(case) {
        return None;
    }
    let flow = case.flow;
    let first = tcp::taken(flow, 0)?;
    // A SYN that comes again meets the listener anew only if the listener kept nothing of the first one.
    if (1..flow.attempts.len()).any(|attempt| tcp::taken(flow, attempt).is_some()) {
        return None;
    }
    Some(Proof {
        explanation: "The backend's listener took the first SYN, but its answer came after the client's \
                      retransmission."
            .to_owned(),
        evidence: std::iter::once(Evidence::seen(
            "listener took the SYN in",
            evidence::place(first),
            Hook::TcpConnRequest,
        ))
        .chain(evidence::earlier(flow))
        .collect(),
    })
}

fn delivery_evidence(case: &Case<'_>, delivered: &Step) -> Vec<Evidence> {
    let flow = case.flow;
    let mut out = vec![
        Evidence::seen(
            "SYN delivered to",
            evidence::place(delivered),
            delivered.event.hook,
        ),
        Evidence::seen("SYNs sent", flow.sent().count().to_string(), Hook::NetifReceive),
        Evidence::seen("SYN-ACKs seen", flow.synacks.to_string(), Hook::DevStartXmit),
    ];
    // Discarded in the pod's own netns: no longer this node's doing, but worth knowing.
    for step in case.steps().filter(|step| !flow.is_on_node(&step.event)) {
        out.extend(evidence::discarded(step, case.facts));
    }
    if let Some(old) = case.decision().reused()
        && case.attempt == 0
    {
        out.extend(evidence::old_entry(old));
    }
    if case.situation == Situation::Late {
        out.extend(evidence::earlier(flow));
    }
    out
}
