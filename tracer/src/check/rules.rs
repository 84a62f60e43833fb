//! Hazards of rule sets and IP sets.

use std::collections::BTreeMap;

use super::{
    hazard::{Hazard, Severity, State, Tested, list},
    node_port::has_kube_proxy,
};
use crate::facts::node_state::NodeState;

pub(super) const HAZARDS: [Hazard; 4] = [
    Hazard {
        id: "rules-mixed",
        title: "Rules of kube-proxy or the CNI in both flavours of iptables",
        severity: Severity::Breaks,
        detect: "KUBE-* or cali-* chains in legacy tables (getsockopt, tables listed in /proc/net/ip_tables_names only) and in nf_tables.",
        why: "Both rule sets apply, and each program keeps only one up to date: leftovers send SYNs to pods that are gone.",
        reference: "kubernetes/kubernetes#71305",
        cause: Some("service.not-translated"),
        tested: Tested::Lab("check-rules"),
        judge: mixed,
    },
    Hazard {
        id: "rules-two-modes",
        title: "Rules of more than one mode of kube-proxy",
        severity: Severity::Breaks,
        detect: "More than one of: virtual services of IPVS, KUBE-SVC-* chains, the nf_tables table kube-proxy.",
        why: "Leftovers of the mode that was used before answer first, with backends that are never updated.",
        reference: "kubernetes/kubernetes#102314",
        cause: None,
        tested: Tested::Lab("check-rules"),
        judge: two_modes,
    },
    Hazard {
        id: "ipset-revision",
        title: "IP sets made by two versions of ipset",
        severity: Severity::Breaks,
        detect: "Two sets of one type have different revisions (IPSET_CMD_LIST): two programs with different versions of ipset make sets here.",
        why: "The older ipset cannot read sets that the newer one made. Calico then stops programming policies and routes.",
        reference: "projectcalico/calico#8372",
        cause: None,
        tested: Tested::Fixture,
        judge: revisions,
    },
    Hazard {
        id: "firewalld-flush",
        title: "A reload of firewalld removes kube-proxy's rules",
        severity: Severity::Warns,
        detect: "firewalld runs and FlushAllOnReload is not `no` in /etc/firewalld/firewalld.conf.",
        why: "Until kube-proxy and the CNI write their rules again, NodePorts do not answer; rules of portmap stay away.",
        reference: "rancher/rke2#10469",
        cause: None,
        tested: Tested::Fixture,
        judge: firewalld,
    },
];

/// Why rules could not be read, as a state.
fn unread(node: &NodeState) -> Option<State> {
    [&node.legacy_rules, &node.nft_rules]
        .iter()
        .find_map(|rules| rules.failure())
        .map(|why| State::unknown(format!("cannot read the rules: {why}")))
}

fn mixed(node: &NodeState) -> State {
    let owned = |rules: &crate::facts::rule_summary::RuleSummary| (rules.kube_chains, rules.calico_chains);
    let legacy = node.legacy_rules.get().map_or((0, 0), owned);
    let nft = node.nft_rules.get().map_or((0, 0), owned);
    let mut owners = Vec::new();
    if legacy.0 > 0 && nft.0 > 0 {
        owners.push(format!("KUBE-*: {} legacy, {} nf_tables", legacy.0, nft.0));
    }
    if legacy.1 > 0 && nft.1 > 0 {
        owners.push(format!("cali-*: {} legacy, {} nf_tables", legacy.1, nft.1));
    }
    if legacy.0 > 0 && nft.1 > 0 || legacy.1 > 0 && nft.0 > 0 {
        owners.push("kube-proxy and Calico use different flavours".to_owned());
    }
    if owners.is_empty() {
        return unread(node).unwrap_or_else(|| State::fine("one flavour of iptables is in use"));
    }
    State::armed(
        format!(
            "legacy iptables and nf_tables both hold Kubernetes' rules ({}): leftovers decide about SYNs",
            owners.join("; ")
        ),
        owners,
        "see which is kept up to date: compare iptables-legacy-save and iptables-nft-save. Use one flavour for all programs, then reboot the node, which removes the other",
    )
}

fn two_modes(node: &NodeState) -> State {
    let rules = [&node.legacy_rules, &node.nft_rules];
    let chains: u32 = rules
        .iter()
        .filter_map(|rules| rules.get())
        .map(|rules| rules.kube_service_chains)
        .sum();
    let has_table = node
        .nft_rules
        .get()
        .is_some_and(|rules| !rules.kube_tables.is_empty());
    let mut modes = Vec::new();
    if let Some(ipvs) = node.ipvs_in_use() {
        modes.push(format!("ipvs ({} virtual services)", ipvs.services.len()));
    }
    if chains > 0 {
        modes.push(format!("iptables ({chains} chains KUBE-SVC-*)"));
    }
    if has_table {
        modes.push("nftables (table kube-proxy)".to_owned());
    }
    if modes.len() < 2 {
        return unread(node).unwrap_or_else(|| State::fine("at most one mode of kube-proxy has rules here"));
    }
    State::armed(
        format!(
            "kube-proxy's rules of {} modes are here: {}",
            modes.len(),
            modes.join(", ")
        ),
        modes,
        "stop kube-proxy, run kube-proxy --cleanup with the version that wrote the leftovers, and start it again; a reboot removes them too",
    )
}

fn revisions(node: &NodeState) -> State {
    let Some(sets) = node.ip_sets.get() else {
        return match node.ip_sets.failure() {
            Some(why) => State::unknown(format!("cannot read the IP sets: {why}")),
            None => State::fine("the module ip_set is not loaded"),
        };
    };
    let mut by_kind: BTreeMap<&str, BTreeMap<u8, &str>> = BTreeMap::new();
    for set in sets {
        by_kind
            .entry(&set.kind)
            .or_default()
            .entry(set.revision)
            .or_insert(&set.name);
    }
    let several: Vec<String> = by_kind
        .iter()
        .filter(|(_, revisions)| revisions.len() > 1)
        .map(|(kind, revisions)| {
            let examples: Vec<String> = revisions
                .iter()
                .map(|(revision, name)| format!("revision {revision} ({name})"))
                .collect();
            format!("{kind}: {}", examples.join(", "))
        })
        .collect();
    if several.is_empty() {
        return State::fine(format!("{} IP sets, one revision of each type", sets.len()));
    }
    State::armed(
        format!(
            "two versions of ipset make sets on this node ({}): the older one fails on sets of the newer one",
            list(&several)
        ),
        several,
        "before an upgrade of the CNI or of kube-proxy, use images with the same version of ipset; if Calico's log says `Kernel and userspace incompatible`, use a newer calico-node",
    )
}

fn firewalld(node: &NodeState) -> State {
    if !node.processes.contains("firewalld") {
        return State::fine("firewalld does not run");
    }
    if !has_kube_proxy(node) {
        return State::fine("no kube-proxy is found");
    }
    match node.firewalld_flushes {
        Some(false) => State::fine("FlushAllOnReload is no"),
        None => State::unknown("firewalld runs, and /etc/firewalld/firewalld.conf is not readable"),
        Some(true) => State::armed(
            "firewalld runs with FlushAllOnReload: its next reload removes the rules of kube-proxy and the CNI",
            ["FlushAllOnReload is yes, or missing".to_owned()],
            "set FlushAllOnReload=no in /etc/firewalld/firewalld.conf, or turn firewalld off on Kubernetes nodes",
        ),
    }
}
