//! The service's own policy: with `externalTrafficPolicy: Local`, a node without an endpoint of the service accepts no
//! client.

use tracer_common::hook::Hook;

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    ipvs::servers,
    row::{Absence, Group, Row},
    rule::{self, Known},
};
use crate::facts::kube_proxy;

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::PolicyLocalNoEndpoint,
    group: Group::Rules,
    summary: "The service has externalTrafficPolicy: Local, and no endpoint on this node.",
    proof: "iptables: the rule that dropped the SYN has the comment that kube-proxy writes for this. nftables: it dropped the SYN \
            because the NodePort is in kube-proxy's map of ports without an endpoint. IPVS: ip_vs_leave was reached for a \
            virtual service without a real server, and the NodePort is in kube-proxy's set KUBE-NODE-PORT-LOCAL-TCP.",
    advice: Some(
        "Send clients only to nodes with an endpoint (a load balancer's health check does), run an endpoint on every node that \
         clients use, or set externalTrafficPolicy: Cluster.",
    ),
    scope: "kube-proxy in iptables mode (where the rule is detectable: see netfilter.rule-dropped), nftables mode and IPVS mode, \
            on every kernel.",
    hooks: &[&[Hook::NftDoChain, Hook::IptDoTable, Hook::IpvsLeave]],
    absence: Absence::Nothing,
    detect: no_local_endpoint,
}];

/// kube-proxy's set of such NodePorts in IPVS mode.
const SET: &str = "KUBE-NODE-PORT-LOCAL-TCP";

fn no_local_endpoint(case: &Case<'_>) -> Option<Proof> {
    match case.situation {
        Situation::Dropped => by_rule(case),
        Situation::Refused => None,
        Situation::Silent | Situation::Late | Situation::Established => return None,
    }
    .or_else(|| by_ipvs(case))
}

/// A rule of kube-proxy dropped the SYN for this.
fn by_rule(case: &Case<'_>) -> Option<Proof> {
    let (step, culprit) = rule::dropped(case)?;
    // The rule is for packets to the NodePort.
    if step.event.tuple != case.flow.original || !is_no_local_endpoint(culprit.known.as_ref()?) {
        return None;
    }
    let policy = Evidence::read(Key::TrafficPolicy, "Local, by kube-proxy's rule", "rules");
    let explanation = format!(
        "{} has no endpoint on this node and does not use those of other nodes (externalTrafficPolicy: Local): the SYN was \
         dropped by {}.",
        name(case),
        culprit.words
    );
    Some(Proof {
        blame: Some(culprit.blame),
        ..Proof::new(explanation, std::iter::once(policy).chain(culprit.evidence))
    })
}

fn is_no_local_endpoint(rule: &Known<'_>) -> bool {
    let by_comment = rule
        .comment
        .as_deref()
        .is_some_and(kube_proxy::says_no_local_endpoint);
    // For a service without any endpoint, the map leads to a rule that rejects.
    let by_map = rule.table == kube_proxy::TABLE && rule.map == Some(kube_proxy::NO_ENDPOINTS);
    by_comment || by_map
}

/// IPVS has a virtual service without a real server, and the NodePort is one of those.
fn by_ipvs(case: &Case<'_>) -> Option<Proof> {
    let (flow, decision) = (case.flow, case.decision());
    let has_none =
        decision.left?.num_dests == 0 || servers::known(case).is_some_and(|dests| dests.counted == 0);
    let node = flow.node();
    if !has_none || !case.netns()?.local_node_ports.has(node.port(), node.is_ipv6()) {
        return None;
    }
    let mut evidence = vec![
        Evidence::read(Key::TrafficPolicy, "Local", SET),
        Evidence::seen(Key::VirtualService, "no real server", Hook::IpvsLeave),
    ];
    evidence.extend(decision.evidence_of_verdict());
    evidence.extend(evidence::icmp(flow));
    Some(Proof::new(
        format!(
            "{} has no endpoint on this node and does not use those of other nodes (externalTrafficPolicy: Local): IPVS has no \
             real server for the SYN.",
            name(case)
        ),
        evidence,
    ))
}

/// The service, by name if that is known.
fn name(case: &Case<'_>) -> String {
    match case.facts.service(case.flow.netns, case.flow.node()) {
        Some(service) => format!("The service {service}"),
        None => format!("The service of NodePort {}", case.flow.node().port()),
    }
}
