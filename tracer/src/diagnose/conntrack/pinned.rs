//! The conntrack entry of an earlier SYN keeps a client on a backend that no rule leads to any more.

use std::net::SocketAddr;

use tracer_common::hook::Hook;

use crate::{
    decode::event::Payload,
    diagnose::{
        advice::command,
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
};

/// Rules count if they were read within this time of the SYN.
const AT_THE_TIME_NS: u64 = 1_000_000_000;

pub(in crate::diagnose) const ROWS: &[Row] = &[Row {
    cause: Cause::ConntrackPinned,
    group: Group::Conntrack,
    summary: "conntrack still held the entry of an earlier SYN from this client port, so the SYN bypassed the rules and went to \
              a backend that they no longer use.",
    proof: "The SYN was translated although nf_nat_setup_info and __nf_conntrack_confirm were not called for it, as they are \
            for each new connection, and within a second of it no rule that a SYN to this NodePort can reach translated to that \
            backend.",
    advice: Some(
        "Delete the entry of that one connection with `conntrack -D` and its addresses and ports, or connect from another client \
         port: every retransmitted SYN restarts the entry's timeout (nf_conntrack_tcp_timeout_syn_sent). kube-proxy removes such \
         entries for UDP only.",
    ),
    scope: "kube-proxy's iptables and nftables modes, and any other DNAT by rules, on every kernel.",
    hooks: &[&[Hook::NatSetup], &[Hook::CtConfirm], &[Hook::DevStartXmit]],
    absence: Absence::Probes,
    light: Light::Hidden,
    detect: pinned,
}];

fn pinned(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let failed = matches!(
        case.situation,
        Situation::Dropped | Situation::Refused | Situation::Silent
    );
    let sees = |hook| !case.facts.absent.contains(&hook);
    // A failed connection that was answered has another cause. One that was established reached the wrong backend.
    if (failed && flow.synacks > 0) || !sees(Hook::NatSetup) || !sees(Hook::CtConfirm) {
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
            Key::NatSetup,
            "not set up: conntrack already had the connection",
            Hook::NatSetup,
        ),
        Evidence::seen(Key::SynSentTo, backend.to_string(), Hook::DevStartXmit),
        rules,
    ];
    evidence.extend(entry.map(|entry| {
        Evidence::seen(
            Key::ConntrackEntry,
            evidence::conntrack_state(entry),
            Hook::DevStartXmit,
        )
    }));
    Some(Proof::new(
        format!(
            "conntrack still held the entry of an earlier SYN from source port {}, so this SYN bypassed the rules. It was sent \
             to {backend}, although no rule on this node leads there any more{}.",
            flow.client().port(),
            if flow.synacks > 0 { ", and was answered" } else { "" }
        ),
        evidence,
    )
    .advise(advice(case)))
}

/// Removes this connection's entry alone: others to the NodePort may be in use.
fn advice(case: &Case<'_>) -> String {
    let timeout = command::setting(case, "net.netfilter.nf_conntrack_tcp_timeout_syn_sent")
        .map_or_else(String::new, |seconds| format!(" ({seconds} s)"));
    format!(
        "Delete this connection's entry: {}. Until then every SYN from this client port goes to the old backend and restarts the \
         entry's timeout{timeout}; other client ports are not affected. kube-proxy removes such entries for UDP only.",
        command::delete_entry(&case.flow.original)
    )
}

/// The rules, read within a second of the SYN, that no longer lead to that backend.
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
        Key::RulesToBackend,
        format!("none, {} ms {when} this SYN", read.abs_diff(sent) / 1_000_000),
        "rules of the node",
    ))
}
