//! The SYN was delivered, and the backend did not answer, or not in time.

use std::net::SocketAddr;

use tracer_common::{hook::Hook, record::route, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
    tcp::{self, timewait},
};
use crate::{
    decode::event::{Payload, text},
    facts::{route::Route, route_lookup::RouteLookup},
    flow::model::Step,
};

/// The longest time from a SYN's arrival to its listener on the same machine, nanoseconds. Shorter than any retransmission timeout.
const AT_ONCE_NS: u64 = 250_000_000;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::BackendSilent,
        group: Group::Ends,
        summary: "The SYN was delivered to the backend, or left the node towards it, and no answer came.",
        proof: "The translated SYN was seen in the backend's network namespace, or handed to a device of the node; nothing came \
                back, and neither a listener nor anything else in the backend's TCP was seen to process it. Or a listener \
                accepted it, and its SYN-ACK was dropped before it left the backend's network namespace.",
        advice: Some(
            "Check the pod (its own firewall, its CPU, a stopped process) or, if it runs on another node, \
             trace there.",
        ),
        scope: "Every kernel and dataplane.",
        hooks: &[&[Hook::DevStartXmit], &[Hook::KfreeSkb], &[Hook::TcpConnRequest]],
        absence: Absence::Probes,
        light: Light::Hidden,
        detect: silent,
    },
    Row {
        cause: Cause::BackendSlow,
        group: Group::Ends,
        summary: "The SYN-ACK came, but later than the client's retransmission.",
        proof: "A listener accepted the first SYN and no later one, and the first SYN-ACK was seen after a retransmission.",
        advice: Some("Check the load of the pod and of the node it runs on."),
        scope: "Every kernel and dataplane, if the backend is on this node.",
        hooks: &[&[Hook::TcpConnRequest]],
        absence: Absence::Probes,
        light: Light::WithPath,
        detect: slow,
    },
];

/// `NF_INET_LOCAL_IN` (uapi/linux/netfilter.h).
const LOCAL_IN: u32 = 1;

fn silent(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let after = match case.situation {
        Situation::Silent if flow.synacks == 0 => "Nothing came back.",
        Situation::Late if flow.is_answered_later(case.attempt) => {
            "No answer came back; a later SYN was answered."
        }
        _ => return None,
    };
    if let Some(accepted) = tcp::accepted(flow, case.attempt) {
        return answer_dropped_inside(case, accepted, after);
    }
    let tcp_reacted = tcp::at_listener(flow, case.attempt).is_some()
        || tcp::refusal(flow, case.attempt).is_some()
        || tcp::dropped_by_tcp(case).is_some()
        || timewait::at_socket(case).is_some();
    if tcp_reacted {
        return None;
    }
    let delivered = case.delivery()?;
    let which = match case.situation {
        Situation::Late => format!("The {}", case.numbered_syn()),
        _ => "The SYN".to_owned(),
    };
    let backend = flow
        .backend_of(case.attempt)
        .unwrap_or_else(|| delivered.event.tuple.destination());
    let place = evidence::place(delivered);
    let dropped = dropped_inside(case, delivered);
    if dropped.is_none() && may_have_met_a_connection(case, delivered) {
        return None;
    }
    let explanation = if lacks_address(case, delivered) {
        format!(
            "{which} was delivered to {place}, but that network namespace does not have the address {}: the pod is gone, or has \
             another address now. {after}",
            backend.ip(),
        )
    } else if let Some(dropped) = dropped {
        format!(
            "{which} {}, and was dropped inside that network namespace, in {}{}. {after}",
            End::of(case, delivered).words(delivered, backend),
            evidence::location(dropped, case.facts),
            by_chain(case, dropped),
        )
    } else {
        format!(
            "{which} {}. {after}",
            End::of(case, delivered).words(delivered, backend)
        )
    };
    let drops = dropped
        .into_iter()
        .flat_map(|step| evidence::dropped(step, case.facts));
    Some(Proof::new(
        explanation,
        delivery_evidence(case, delivered).into_iter().chain(drops),
    ))
}

/// Whether the backend's TCP may have received the SYN on the socket of an old connection and dropped it without a trace.
pub(super) fn may_have_met_a_connection(case: &Case<'_>, delivered: &Step) -> bool {
    let is_at_backend = matches!(End::of(case, delivered), End::Backend | End::Unknown);
    is_at_backend && !tcp::shows_drops(case) && !lacks_address(case, delivered)
}

/// The end of a SYN's path, as far as it was seen.
enum End<'a> {
    /// In the backend's netns: the destination is local there.
    Backend,
    /// In a netns that has this route to the destination: it would have to forward the SYN.
    Hop(&'a Route),
    /// In a netns whose route to the destination is unknown.
    Unknown,
    /// At a device, through which it left the node.
    LeftNode,
    /// At a device, through which it left a netns that forwarded it.
    LeftHop,
}

impl<'a> End<'a> {
    fn of(case: &Case<'a>, delivered: &Step) -> Self {
        if delivered.event.hook == Hook::DevStartXmit {
            return if case.flow.is_on_node(&delivered.event) {
                Self::LeftNode
            } else {
                Self::LeftHop
            };
        }
        let netns = delivered.event.netns;
        // At this netfilter hook the kernel has decided that the packet is for the namespace itself.
        let at_input = case.steps().any(|step| {
            step.event.netns == netns
                && matches!(&step.event.payload, Payload::Chain(chain) if chain.nf_hook == LOCAL_IN)
        });
        if at_input {
            return Self::Backend;
        }
        // Rules may mark the packet after it came in.
        let arrived = case.steps().rfind(|step| {
            step.event.hook == Hook::NetifReceive
                && step.event.part == Part::Syn
                && step.event.netns == netns
                && step.event.tuple.daddr == delivered.event.tuple.daddr
        });
        let lookup = RouteLookup::ahead(netns, &arrived.unwrap_or(delivered).event, None);
        match case.facts.route(&lookup) {
            Some(Route::Found(route)) if route.is_local() => Self::Backend,
            Some(route) => Self::Hop(route),
            None => Self::Unknown,
        }
    }

    fn words(&self, delivered: &Step, backend: SocketAddr) -> String {
        let place = evidence::place(delivered);
        match self {
            Self::Backend => format!("was delivered to the backend {backend} ({place})"),
            Self::Hop(route) => format!(
                "reached {place}, which does not have the address {} and would have to forward it ({route})",
                backend.ip()
            ),
            Self::Unknown => format!("was delivered to {place}, towards the backend {backend}"),
            Self::LeftNode => format!("left this node through {place}, towards the backend {backend}"),
            Self::LeftHop => {
                format!("was forwarded and left through {place}, towards the backend {backend}")
            }
        }
    }
}

/// The step at which the network namespace that received the SYN dropped it.
fn dropped_inside<'a>(case: &Case<'a>, delivered: &Step) -> Option<&'a Step> {
    case.steps().find(|step| {
        step.event.part == Part::Syn
            && matches!(step.event.payload, Payload::Drop(_))
            && !case.flow.is_on_node(&delivered.event)
            && step.event.netns == delivered.event.netns
    })
}

/// The chain of that namespace that dropped it, if one was seen.
fn by_chain(case: &Case<'_>, dropped: &Step) -> String {
    let chain = case.steps().find_map(|step| match &step.event.payload {
        Payload::Chain(chain) if step.event.netns == dropped.event.netns => Some(chain),
        _ => None,
    });
    match chain.map(|chain| (text(&chain.table), text(&chain.chain))) {
        Some((table, chain)) if !table.is_empty() => format!(" (table {table} chain {chain})"),
        Some((_, chain)) if !chain.is_empty() => format!(" (chain {chain})"),
        _ => String::new(),
    }
}

/// Whether the netns that received the SYN lacks its address, and would have to forward it although forwarding is off.
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

/// Proves that a listener in the backend's own netns answered, and that netns dropped the answer.
fn answer_dropped_inside(case: &Case<'_>, accepted: &Step, after: &str) -> Option<Proof> {
    let flow = case.flow;
    if flow.is_on_node(&accepted.event) {
        return None;
    }
    let dropped = flow.steps.iter().find(|step| {
        step.event.part == Part::SynAck
            && matches!(step.event.payload, Payload::Drop(_))
            && step.netns == accepted.netns
            && step.attempt >= accepted.attempt
    })?;
    let mut evidence = vec![Evidence::seen(
        Key::ListenerAccepted,
        evidence::place(accepted),
        Hook::TcpConnRequest,
    )];
    evidence.extend(evidence::dropped(dropped, case.facts));
    Some(Proof::new(
        format!(
            "The backend {} answered the SYN, but its SYN-ACK was dropped before it left the backend's own network namespace. \
             {after}",
            accepted.event.tuple.destination(),
        ),
        evidence,
    ))
}

fn slow(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    if case.situation != Situation::Late || !flow.is_answered_later(case.attempt) {
        return None;
    }
    let mut at_listener = flow
        .steps
        .iter()
        .filter(|step| step.event.hook == Hook::TcpConnRequest);
    // A retransmitted SYN reaches the listener only if the listener kept nothing of the one before.
    let accepted = at_listener.next().filter(|step| step.attempt <= case.attempt)?;
    if at_listener.any(|step| step.attempt != accepted.attempt) {
        return None;
    }
    if !case.is_watched() && !reached_at_once(case, accepted) {
        return None;
    }
    let is_same = accepted.attempt == case.attempt;
    if !is_same && flow.backend_of(accepted.attempt) != flow.backend_of(case.attempt) {
        return None;
    }
    let evidence = Evidence::seen(
        Key::ListenerAccepted,
        evidence::place(accepted),
        Hook::TcpConnRequest,
    );
    let explanation = if is_same {
        format!(
            "The backend's listener accepted the {}, but its answer came after the client's retransmission.",
            case.numbered_syn()
        )
    } else {
        "The backend's listener had accepted an earlier SYN, but its answer came only after another retransmission.".to_owned()
    };
    Some(Proof::new(
        explanation,
        std::iter::once(evidence).chain(evidence::earlier(flow)),
    ))
}

/// Whether nothing on this node delayed the SYN, as far as the hooks at rest show.
fn reached_at_once(case: &Case<'_>, accepted: &Step) -> bool {
    let sent = case.flow.attempts.get(accepted.attempt).map(|syn| syn.time_ns);
    let is_queued = case
        .flow
        .steps
        .iter()
        .any(|step| step.event.hook == Hook::NeighbourSend);
    !is_queued && sent.is_some_and(|sent| accepted.event.time_ns.saturating_sub(sent) < AT_ONCE_NS)
}

fn delivery_evidence(case: &Case<'_>, delivered: &Step) -> Vec<Evidence> {
    let flow = case.flow;
    let mut out = vec![
        Evidence::seen(
            Key::SynDeliveredTo,
            evidence::place(delivered),
            delivered.event.hook,
        ),
        Evidence::seen(Key::SynsSent, flow.sent().count().to_string(), Hook::NetifReceive),
        Evidence::seen(Key::SynAcksSeen, flow.synacks.to_string(), Hook::DevStartXmit),
    ];
    // What the pod's own netns dropped is no longer this node's doing, but worth knowing.
    for step in case.steps().filter(|step| !flow.is_on_node(&step.event)) {
        out.extend(evidence::dropped(step, case.facts));
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
