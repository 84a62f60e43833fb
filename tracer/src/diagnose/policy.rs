//! The service's own policy: with `externalTrafficPolicy: Local`, a node without an endpoint of the service takes no
//! client.

use tracer_common::hook::Hook;

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    ipvs::servers,
    rule::{self, Known},
};
use crate::facts::kube_proxy;

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::PolicyLocalNoEndpoint,
    says: "The service has externalTrafficPolicy: Local, and no endpoint on this node.",
    proof: "iptables: the rule that dropped the SYN says so in the comment that kube-proxy writes. nftables: it dropped \
            the SYN because the NodePort is in kube-proxy's map of ports without an endpoint. IPVS: ip_vs_leave was \
            reached for a virtual service without a single real server, and the NodePort is in kube-proxy's set \
            KUBE-NODE-PORT-LOCAL-TCP.",
    advice: Some(
        "Send clients only to nodes with an endpoint (a load balancer's health check does), run an endpoint on every \
         node that clients use, or set externalTrafficPolicy: Cluster.",
    ),
    occurs: "kube-proxy in iptables mode (the rule must be told: see netfilter.rule-dropped), nftables mode, and IPVS mode, \
             on every kernel.",
    hooks: &[&[Hook::NftDoChain, Hook::IptDoTable, Hook::IpvsLeave]],
    find: no_local_endpoint,
}];

/// The set of NodePorts in kube-proxy's IPVS mode.
const SET: &str = "KUBE-NODE-PORT-LOCAL-TCP";

fn no_local_endpoint(case: &Case<'_>) -> Option<Proof> {
    match case.situation {
        Situation::Dropped => by_rule(case),
        Situation::Refused => None,
        Situation::Silent | Situation::Late => return None,
    }
    .or_else(|| by_ipvs(case))
}

/// A rule of kube-proxy's dropped the SYN and says why.
fn by_rule(case: &Case<'_>) -> Option<Proof> {
    let (step, blame) = rule::dropped(case)?;
    // The rule is there for what comes to the NodePort.
    if step.event.tuple != case.flow.original || !is_no_local_endpoint(blame.rule.as_ref()?) {
        return None;
    }
    let mut evidence = blame.evidence;
    evidence.insert(
        0,
        Evidence::read("externalTrafficPolicy", "Local, by kube-proxy's rule", "rules"),
    );
    Some(Proof {
        explanation: format!(
            "{} has no endpoint on this node, and takes clients to no other (externalTrafficPolicy: Local): the SYN was \
             dropped by {}.",
            name(case),
            blame.words
        ),
        evidence,
    })
}

fn is_no_local_endpoint(rule: &Known<'_>) -> bool {
    let says = rule
        .comment
        .as_deref()
        .is_some_and(kube_proxy::says_no_local_endpoint);
    // For a service without any endpoint, the map leads to a rule that rejects.
    let is_in_map = rule.table == kube_proxy::TABLE && rule.map == Some(kube_proxy::NO_ENDPOINTS);
    says || is_in_map
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
    let mut out = vec![
        Evidence::read("externalTrafficPolicy", "Local", SET),
        Evidence::seen("virtual service", "no real server", Hook::IpvsLeave),
    ];
    out.extend(decision.evidence_of_verdict());
    out.extend(evidence::icmp(flow));
    Some(Proof {
        explanation: format!(
            "{} has no endpoint on this node, and takes clients to no other (externalTrafficPolicy: Local): IPVS has \
             nowhere to send the SYN to.",
            name(case)
        ),
        evidence: out,
    })
}

/// The service, by its name if it is known.
fn name(case: &Case<'_>) -> String {
    match case.facts.service(case.flow.netns, case.flow.node()) {
        Some(service) => format!("The service {service}"),
        None => format!("The service of NodePort {}", case.flow.node().port()),
    }
}
