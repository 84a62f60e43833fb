//! conntrack's entry of an earlier SYN holds a client at a backend that no rule leads to any more.

use std::net::SocketAddr;

use tracer_common::{
    hook::Hook,
    record::{Conntrack, conntrack},
};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::Evidence,
};
use crate::decode::event::Payload;

/// Rules are read when such a SYN is seen, or were shortly before.
const AT_THE_TIME_NS: u64 = 1_000_000_000;

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::ConntrackPinned,
    says: "conntrack still had the entry of an earlier SYN from the same client port, so the rules were not asked again: the \
           SYN went to a backend that they do not lead to any more.",
    proof: "The SYN was translated although nf_nat_setup_info and __nf_conntrack_confirm were not called for it, as they are \
            for each new connection, and within a second of it no rule of the node translated to that backend.",
    advice: Some(
        "Delete the entry (`conntrack -D -p tcp --orig-port-dst NODEPORT`), or let the client connect from another port: \
         each SYN that is sent again keeps the entry alive for another nf_conntrack_tcp_timeout_syn_sent (120 s). \
         kube-proxy removes such entries for UDP only.",
    ),
    occurs: "kube-proxy's iptables and nftables modes, and any other DNAT by rules, on every kernel. Not where a rule looks the \
             address up in a map, since it may then lead anywhere; and not while another service still has the backend.",
    hooks: &[&[Hook::NatSetup], &[Hook::CtConfirm], &[Hook::DevStartXmit]],
    find: pinned,
}];

fn pinned(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let failed = matches!(
        case.situation,
        Situation::Dropped | Situation::Refused | Situation::Silent
    );
    let sees = |hook| !case.facts.absent.contains(&hook);
    if !failed || flow.synacks > 0 || !sees(Hook::NatSetup) || !sees(Hook::CtConfirm) {
        return None;
    }
    let backend = flow.backend_by_old_entry(case.attempt)?;
    let rules = rules_at_that_time(case, backend)?;
    let entry = case.steps().find_map(|step| match &step.event.payload {
        Payload::Conntrack(entry) if step.event.hook == Hook::DevStartXmit => Some(entry),
        _ => None,
    });
    let mut evidence = vec![
        Evidence::seen(
            "NAT for this SYN",
            "not set up: conntrack knew its connection",
            Hook::NatSetup,
        ),
        Evidence::seen("SYN sent to", backend.to_string(), Hook::DevStartXmit),
        rules,
    ];
    evidence.extend(entry.map(state));
    Some(Proof {
        explanation: format!(
            "conntrack still had the entry of an earlier SYN from source port {}, so no rule was asked about this one: it was \
             sent to {backend}, although no rule of this node leads there any more.",
            flow.client().port()
        ),
        evidence,
    })
}

/// The rules, read about when the SYN was sent, led to that backend no more.
fn rules_at_that_time(case: &Case<'_>, backend: SocketAddr) -> Option<Evidence> {
    let sent = case.flow.attempts.get(case.attempt)?.time_ns;
    let read = case
        .facts
        .unreachable_by_rule
        .get(&(case.flow.netns, backend))?
        .iter()
        .find(|read| read.abs_diff(sent) <= AT_THE_TIME_NS)?;
    let when = if *read < sent { "before" } else { "after" };
    Some(Evidence::read(
        "rules that translate to it",
        format!("none, {} ms {when} this SYN", read.abs_diff(sent) / 1_000_000),
        "rules of the node",
    ))
}

fn state(entry: &Conntrack) -> Evidence {
    let answered = if entry.status & conntrack::SEEN_REPLY == 0 {
        "not answered"
    } else {
        "answered"
    };
    let state = conntrack::tcp_state_name(entry.tcp_state)
        .map_or_else(String::new, |state| format!("TCP state {state}, "));
    Evidence::seen("the entry", format!("{state}{answered}"), Hook::DevStartXmit)
}
