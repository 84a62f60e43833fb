//! The service's own policy: with `externalTrafficPolicy: Local`, a node without an endpoint of the service accepts no
//! client.

use tracer_common::hook::Hook;

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    ipvs::service,
    row::{Absence, Group, Light, Row},
    rule::{self, Known},
    words::count,
};
use crate::facts::{kube_proxy, nat_rule::NatRule};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::PolicyLocalNoEndpoint,
    group: Group::Rules,
    summary: "The service has externalTrafficPolicy: Local and no endpoint on this node.",
    proof: "iptables: the rule that dropped the SYN, or the only one that could have marked it for kubelet's rule to drop, has the \
            comment that kube-proxy writes for this. nftables: the rule dropped the SYN because the NodePort is in kube-proxy's \
            map of ports without an endpoint. IPVS: ip_vs_leave was reached for a virtual service without a real server, or only \
            with draining ones (weight 0), and the NodePort is in kube-proxy's set KUBE-NODE-PORT-LOCAL-TCP.",
    advice: Some(
        "Send clients only to nodes with an endpoint (a load balancer's health check does this), run an endpoint on every node that \
         clients use, or set externalTrafficPolicy: Cluster.",
    ),
    scope: "kube-proxy in iptables mode (where the rule is detectable: see netfilter.rule-dropped), nftables mode and IPVS mode, \
            on every kernel.",
    hooks: &[&[Hook::NftDoChain, Hook::IptDoTable, Hook::IpvsLeave]],
    absence: Absence::Nothing,
    light: Light::Proves,
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

/// Proves that a kube-proxy rule dropped the SYN because of the policy.
fn by_rule(case: &Case<'_>) -> Option<Proof> {
    let (step, culprit) = rule::dropped(case)?;
    // The rule is for packets to the NodePort.
    let known = culprit.known.as_ref()?;
    if step.event.tuple != case.flow.original {
        return None;
    }
    let marking = if is_no_local_endpoint(known) {
        None
    } else {
        Some(marking_rule(case, known)?)
    };
    let policy = Evidence::read(Key::TrafficPolicy, "Local, by kube-proxy's rule", "rules");
    let explanation = format!(
        "{} has externalTrafficPolicy: Local and no endpoint on this node: the SYN was {}dropped by {}.",
        name(case),
        marking
            .as_ref()
            .map_or_else(String::new, |rule| format!("marked by {rule}, and then ")),
        culprit.words
    );
    let marking = marking.map(|rule| {
        let value = rule
            .comment
            .map_or_else(String::new, |comment| format!(", \"{comment}\""));
        Evidence::read(
            Key::MarkingRule,
            format!(
                "rule {} of chain {} in table {}{value}",
                rule.number, rule.chain, rule.table
            ),
            "rules",
        )
    });
    Some(Proof {
        blame: Some(culprit.blame),
        ..Proof::new(
            explanation,
            std::iter::once(policy).chain(marking).chain(culprit.evidence),
        )
    })
}

/// The rule that marked the SYN, where the one that dropped it drops marked packets: up to 1.2x, kube-proxy's own rule only marks
/// them. `None` if the SYN could have been marked for another reason.
fn marking_rule(case: &Case<'_>, dropping: &Known<'_>) -> Option<NatRule> {
    let is_for_marked = dropping.comment.as_deref() == Some(kube_proxy::DROPS_MARKED);
    let mut marking = is_for_marked.then(|| rule::marking(case))?;
    let says_so = |rule: &NatRule| {
        rule.comment
            .as_deref()
            .is_some_and(kube_proxy::says_no_local_endpoint)
    };
    (marking.len() == 1 && says_so(&marking[0])).then(|| marking.remove(0))
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

/// Proves that IPVS has a virtual service without a real server, or only with draining ones, and that the NodePort is in
/// kube-proxy's set of Local ports.
fn by_ipvs(case: &Case<'_>) -> Option<Proof> {
    let (flow, decision) = (case.flow, case.decision());
    let draining = service::draining(case, decision.left?.num_dests)?;
    let node = flow.node();
    if !case.netns()?.local_node_ports.has(node.port(), node.is_ipv6()) {
        return None;
    }
    let mut evidence = vec![
        Evidence::read(Key::TrafficPolicy, "Local", SET),
        Evidence::seen(
            Key::VirtualService,
            match draining {
                0 => "no real server".to_owned(),
                draining => format!("{} of weight 0, no other", count(draining, "real server")),
            },
            Hook::IpvsLeave,
        ),
    ];
    evidence.extend(decision.evidence_of_verdict());
    evidence.extend(evidence::icmp(flow));
    Some(Proof::new(
        format!(
            "{} has externalTrafficPolicy: Local and no endpoint on this node: IPVS has no usable real server for the SYN{}.",
            name(case),
            match draining {
                0 => "",
                1 => " (its last one is draining, weight 0)",
                _ => " (its last ones are draining, weight 0)",
            }
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
