//! Hazards of NodePorts.

use std::collections::BTreeSet;

use super::hazard::{Hazard, Severity, State, Tested, list, setting};
use crate::facts::{
    node_state::{NODE_PORTS, NodeState},
    rule_summary::DropPolicy,
};

const PORTS: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

pub(super) const HAZARDS: [Hazard; 3] = [
    Hazard {
        id: "nodeport-ephemeral",
        title: "The node's own connections can use a NodePort as source port",
        severity: Severity::Warns,
        detect: "net.ipv4.ip_local_port_range meets 30000-32767, and net.ipv4.ip_local_reserved_ports does not cover it; only where kube-proxy or IPVS is found.",
        why: "The reply to such a connection is taken for a request to the NodePort, and the connection hangs.",
        reference: "kubernetes/kubernetes#111682",
        cause: Some("ipvs.reply-as-request"),
        tested: Tested::Lab("check-settings"),
        judge: ephemeral,
    },
    Hazard {
        id: "nodeport-listener",
        title: "A process listens on a port that is a NodePort",
        severity: Severity::Warns,
        detect: "A listener of the node (/proc/net/tcp) on the port of an IPVS service at an address of the node, other than kube-proxy's own before 1.24.",
        why: "Clients reach the service and never the process.",
        reference: "kubernetes/kubernetes#100643",
        cause: None,
        tested: Tested::Lab("check-devices"),
        judge: listener,
    },
    Hazard {
        id: "nodeport-firewall",
        title: "A policy drops what the rules do not accept",
        severity: Severity::Warns,
        detect: "The policy of a chain at the hook input (IPVS) or forward is to drop, in legacy iptables or nf_tables, where kube-proxy or IPVS is found.",
        why: "A SYN that no rule accepts is dropped without a trace: in IPVS mode at input, in the other modes at forward.",
        reference: "kubernetes/kubernetes#98465",
        cause: Some("netfilter.rule-dropped"),
        tested: Tested::Lab("check-rules"),
        judge: firewall,
    },
];

/// Whether the node has a dataplane of kube-proxy.
pub(super) fn has_kube_proxy(node: &NodeState) -> bool {
    let chains = |rules: &crate::facts::rule_summary::RuleSummary| {
        rules.kube_chains > 0 || !rules.kube_tables.is_empty()
    };
    node.ipvs_in_use().is_some()
        || [&node.legacy_rules, &node.nft_rules]
            .iter()
            .any(|rules| rules.get().is_some_and(chains))
        || node
            .processes
            .iter()
            .any(|name| matches!(name.as_str(), "kube-proxy" | "k3s-server" | "kube-router"))
}

fn ephemeral(node: &NodeState) -> State {
    if !has_kube_proxy(node) {
        return State::fine("no kube-proxy is found");
    }
    let range = node.sysctls.get(PORTS).and_then(|range| {
        let mut ends = range.split_ascii_whitespace().map(str::parse::<u16>);
        Some((ends.next()?.ok()?, ends.next()?.ok()?))
    });
    let Some((first, last)) = range else {
        return State::unknown(format!("{PORTS} is not readable"));
    };
    let (from, to) = (first.max(*NODE_PORTS.start()), last.min(*NODE_PORTS.end()));
    if from > to {
        return State::fine(format!("{PORTS} is {first} to {last}"));
    }
    let reserved = reserved(node.sysctls.get(RESERVED).unwrap_or_default());
    let free = (from..=to)
        .filter(|port| {
            !reserved
                .iter()
                .any(|(first, last)| (first..=last).contains(&port))
        })
        .count();
    if free == 0 {
        return State::fine(format!("{RESERVED} covers the NodePorts"));
    }
    State::armed(
        format!(
            "{PORTS} is {first} to {last}: {free} NodePorts can become source ports of the node's own connections, which then hang"
        ),
        [setting(node, PORTS), setting(node, RESERVED)],
        format!(
            "sysctl -w {RESERVED}={}",
            with_node_ports(node.sysctls.get(RESERVED))
        ),
    )
}

/// The reserved ports with the NodePorts added.
fn with_node_ports(reserved: Option<&str>) -> String {
    let range = format!("{}-{}", NODE_PORTS.start(), NODE_PORTS.end());
    match reserved.map(str::trim).filter(|reserved| !reserved.is_empty()) {
        Some(reserved) => format!("{reserved},{range}"),
        None => range,
    }
}

/// Parses a list of ports and ranges, such as `8080,30000-32767`.
fn reserved(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

fn listener(node: &NodeState) -> State {
    if node.processes.contains("kube-proxy") && node.ipvs_in_use().is_none() {
        return State::fine("NodePorts of the iptables and nftables modes are not compared with listeners");
    }
    let Some(ipvs) = node.ipvs_in_use() else {
        return State::fine("IPVS has no virtual service here");
    };
    let dummy: BTreeSet<_> = node.addresses_of("kube-ipvs0").collect();
    let ports: BTreeSet<u16> = ipvs
        .addresses()
        .filter(|address| !dummy.contains(&address.ip()) && NODE_PORTS.contains(&address.port()))
        .map(|address| address.port())
        .collect();
    let taken: BTreeSet<u16> = node
        .listeners
        .iter()
        .map(|listener| listener.address.port())
        .filter(|port| ports.contains(port))
        .collect();
    if taken.is_empty() {
        return State::fine("no process listens on a NodePort");
    }
    let held = taken.len() == ports.len();
    let taken: Vec<String> = taken.iter().map(u16::to_string).collect();
    if held && taken.len() > 1 {
        return State::fine("all NodePorts have a listener: kube-proxy before 1.24 holds them");
    }
    State::armed(
        format!(
            "a process listens on port {}, which is also a NodePort: clients reach the service instead",
            list(&taken)
        ),
        taken.iter().map(|port| format!("a listener on port {port}")),
        format!(
            "see who listens: ss -ltnp 'sport = :{}'. If it is not kube-proxy, move the process or the NodePort",
            taken.first().map_or("", String::as_str)
        ),
    )
}

fn firewall(node: &NodeState) -> State {
    if !has_kube_proxy(node) {
        return State::fine("no kube-proxy is found");
    }
    let summaries = [&node.legacy_rules, &node.nft_rules];
    let policies: Vec<(bool, &DropPolicy)> = summaries
        .iter()
        .enumerate()
        .filter_map(|(nth, rules)| Some((nth == 0, rules.get()?)))
        .flat_map(|(is_legacy, rules)| rules.drop_policies.iter().map(move |policy| (is_legacy, policy)))
        // Only IPVS handles NodePorts at input.
        .filter(|(_, policy)| !policy.is_input || node.ipvs_in_use().is_some())
        .collect();
    if policies.is_empty() {
        return match summaries.iter().find_map(|rules| rules.failure()) {
            Some(why) => State::unknown(format!("cannot read the rules: {why}")),
            None => State::fine("no policy at input or forward drops"),
        };
    }
    let name = |(is_legacy, policy): &(bool, &DropPolicy)| {
        let flavour = if *is_legacy {
            "iptables-legacy"
        } else {
            "nf_tables"
        };
        let DropPolicy {
            family, table, chain, ..
        } = policy;
        format!("{flavour} {family} {table} {chain}: policy drop")
    };
    let names: Vec<String> = policies.iter().map(name).collect();
    let (is_legacy, first) = policies[0];
    let accept = match (is_legacy, first.family.as_str(), first.is_input) {
        (true, family, is_input) => {
            let program = if family == "ip6" {
                "ip6tables-legacy"
            } else {
                "iptables-legacy"
            };
            let (chain, ports) = chain_and_ports(is_input);
            format!("{program} -I {chain} -p tcp{ports} -j ACCEPT")
        }
        (false, family, is_input) => {
            let ports = if is_input {
                "tcp dport 30000-32767 accept"
            } else {
                "ct status dnat accept"
            };
            format!("nft insert rule {family} {} {} {ports}", first.table, first.chain)
        }
    };
    State::armed(
        format!(
            "a SYN to a NodePort that no rule accepts is dropped: {}",
            list(&names)
        ),
        names,
        format!("if NodePorts do not answer, accept them: {accept}"),
    )
}

const fn chain_and_ports(is_input: bool) -> (&'static str, &'static str) {
    if is_input {
        ("INPUT", " --dport 30000:32767")
    } else {
        ("FORWARD", " -m conntrack --ctstate DNAT")
    }
}
