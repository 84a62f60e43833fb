//! The rules of Kubernetes 1.20: chains `KUBE-XLB-…` instead of `KUBE-EXT-…`, no counters, and a mark on packets that kubelet's
//! rule drops.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::super::names::{ServiceChains, iptables_endpoint};
use super::super::plan::{CLUSTER_PORT, Endpoint, Plan, ServicePort};
use super::part::{CANARY, NEW, jump_rule, probability};
use crate::scenario::{Family, Policy, address};

/// Jumps from the kernel's chains: table, chain, from where, comment, match. The last one comes first.
const JUMPS: [(&str, &str, &str, &str, &str); 10] = [
    ("filter", "KUBE-FIREWALL", "INPUT", "", ""),
    ("filter", "KUBE-FIREWALL", "OUTPUT", "", ""),
    (
        "filter",
        "KUBE-EXTERNAL-SERVICES",
        "INPUT",
        "kubernetes externally-visible service portals",
        NEW,
    ),
    (
        "filter",
        "KUBE-EXTERNAL-SERVICES",
        "FORWARD",
        "kubernetes externally-visible service portals",
        NEW,
    ),
    (
        "filter",
        "KUBE-SERVICES",
        "FORWARD",
        "kubernetes service portals",
        NEW,
    ),
    (
        "filter",
        "KUBE-SERVICES",
        "OUTPUT",
        "kubernetes service portals",
        NEW,
    ),
    (
        "filter",
        "KUBE-FORWARD",
        "FORWARD",
        "kubernetes forwarding rules",
        "",
    ),
    ("nat", "KUBE-SERVICES", "OUTPUT", "kubernetes service portals", ""),
    (
        "nat",
        "KUBE-SERVICES",
        "PREROUTING",
        "kubernetes service portals",
        "",
    ),
    (
        "nat",
        "KUBE-POSTROUTING",
        "POSTROUTING",
        "kubernetes postrouting rules",
        "",
    ),
];

const FILTER_CHAINS: [&str; 5] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FIREWALL",
    "KUBE-FORWARD",
    CANARY,
];

const NAT_CHAINS: [&str; 6] = [
    "KUBE-NODEPORTS",
    "KUBE-SERVICES",
    "KUBE-MARK-MASQ",
    "KUBE-MARK-DROP",
    "KUBE-POSTROUTING",
    CANARY,
];

/// The fixed rules of the nat table.
const NAT: [&str; 5] = [
    "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
    "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
    "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    "-A KUBE-MARK-DROP -j MARK --or-mark 0x8000",
];

/// The fixed rules of the filter table.
const FILTER: [&str; 5] = [
    "-A KUBE-FIREWALL -m comment --comment \"kubernetes firewall for dropping marked packets\" -m mark --mark 0x8000/0x8000 -j DROP",
    "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT",
    "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack pod source rule\" -m conntrack --ctstate \
     RELATED,ESTABLISHED -j ACCEPT",
    "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack pod destination rule\" -m conntrack --ctstate \
     RELATED,ESTABLISHED -j ACCEPT",
];

const LOCALNET: &str = "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet \
                        connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";

/// The input of `iptables-restore`, and the names of its service and endpoint chains.
pub(super) fn rules(plan: &Plan, before: Option<&BTreeSet<String>>) -> (String, BTreeSet<String>) {
    let mut filter: Vec<String> = FILTER.map(str::to_owned).to_vec();
    if plan.family == Family::Ipv4 {
        filter.push(LOCALNET.to_owned());
    }
    let mut nat: Vec<String> = NAT.map(str::to_owned).to_vec();
    let mut chains = BTreeSet::new();
    for service_port in &plan.service_ports {
        write(service_port, plan.family, &mut chains, &mut filter, &mut nat);
    }
    nat.push(
        "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
         -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
            .to_owned(),
    );
    let none = BTreeSet::new();
    let stale: Vec<&String> = before.unwrap_or(&none).difference(&chains).collect();
    nat.extend(stale.iter().map(|chain| format!("-X {chain}")));
    let own = chains.iter().chain(stale.iter().copied()).map(String::as_str);
    let nat_chains = NAT_CHAINS.into_iter().chain(own).collect();
    let mut text = String::new();
    for (name, chains, rules) in [
        ("filter", FILTER_CHAINS.to_vec(), filter),
        ("nat", nat_chains, nat),
        ("mangle", vec![CANARY], Vec::new()),
    ] {
        let _ = writeln!(text, "*{name}");
        for chain in chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        if before.is_none() {
            for jump in JUMPS.iter().filter(|(table, ..)| *table == name) {
                text += &jump_rule(jump);
            }
        }
        for rule in rules {
            let _ = writeln!(text, "{rule}");
        }
        text += "COMMIT\n";
    }
    (text, chains)
}

fn write(
    service_port: &ServicePort,
    family: Family,
    chains: &mut BTreeSet<String>,
    filter: &mut Vec<String>,
    nat: &mut Vec<String>,
) {
    let ServicePort {
        name,
        cluster_ip,
        node_port,
        external,
        endpoints,
        ..
    } = service_port;
    let of = ServiceChains::iptables(name);
    let (cluster, pods) = (&of.cluster, address::pods(family));
    let local = cluster.replace("KUBE-SVC-", "KUBE-XLB-");
    if endpoints.is_empty() {
        let why = format!("-m comment --comment \"{name} has no endpoints\"");
        filter.push(format!(
            "-A KUBE-EXTERNAL-SERVICES -p tcp {why} -m addrtype --dst-type LOCAL -m tcp --dport {node_port} -j REJECT"
        ));
        filter.push(format!(
            "-A KUBE-SERVICES -d {cluster_ip} -p tcp {why} -m tcp --dport {CLUSTER_PORT} -j REJECT"
        ));
        return;
    }
    chains.insert(cluster.clone());
    let to_cluster_ip = format!(
        "-d {cluster_ip} -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport {CLUSTER_PORT}"
    );
    nat.push(format!(
        "-A KUBE-SERVICES ! -s {pods} {to_cluster_ip} -j KUBE-MARK-MASQ"
    ));
    nat.push(format!("-A KUBE-SERVICES {to_cluster_ip} -j {cluster}"));
    let to_node_port = format!("-p tcp -m comment --comment \"{name}\" -m tcp --dport {node_port}");
    match external {
        Policy::Cluster => {
            nat.push(format!("-A KUBE-NODEPORTS {to_node_port} -j KUBE-MARK-MASQ"));
            nat.push(format!("-A KUBE-NODEPORTS {to_node_port} -j {cluster}"));
        }
        Policy::Local => {
            chains.insert(local.clone());
            let loopback = match family {
                Family::Ipv4 => "127.0.0.0/8",
                Family::Ipv6 => "::1/128",
            };
            let from_node = "-m addrtype --src-type LOCAL";
            nat.extend([
                format!("-A KUBE-NODEPORTS -s {loopback} {to_node_port} -j KUBE-MARK-MASQ"),
                format!("-A KUBE-NODEPORTS {to_node_port} -j {local}"),
                format!(
                    "-A {local} -s {pods} -m comment --comment \"Redirect pods trying to reach external loadbalancer VIP to \
                     clusterIP\" -j {cluster}"
                ),
                format!(
                    "-A {local} -m comment --comment \"masquerade LOCAL traffic for {name} LB IP\" {from_node} -j \
                     KUBE-MARK-MASQ"
                ),
                format!(
                    "-A {local} -m comment --comment \"route LOCAL traffic for {name} LB IP to service chain\" {from_node} -j \
                     {cluster}"
                ),
            ]);
            let here = service_port.allowed(Policy::Local);
            if here.is_empty() {
                nat.push(format!(
                    "-A {local} -m comment --comment \"{name} has no local endpoints\" -j KUBE-MARK-DROP"
                ));
            }
            for (nth, Endpoint { at, .. }) in here.iter().enumerate() {
                nat.push(format!(
                    "-A {local} -m comment --comment \"Balancing rule {nth} for {name}\" {}-j {}",
                    probability(here.len() - nth),
                    iptables_endpoint(name, *at)
                ));
            }
        }
    }
    pick_endpoint(service_port, cluster, chains, nat);
}

/// The rules that choose a pod, and the DNAT to each.
fn pick_endpoint(
    service_port: &ServicePort,
    cluster: &str,
    chains: &mut BTreeSet<String>,
    nat: &mut Vec<String>,
) {
    let ServicePort {
        name,
        affinity,
        endpoints,
        ..
    } = service_port;
    let comment = format!("-m comment --comment \"{name}\"");
    if let Some(seconds) = affinity {
        for Endpoint { at, .. } in endpoints {
            let chain = iptables_endpoint(name, *at);
            nat.push(format!(
                "-A {cluster} {comment} -m recent --name {chain} --rcheck --seconds {seconds} --reap -j {chain}"
            ));
        }
    }
    for (nth, Endpoint { at, .. }) in endpoints.iter().enumerate() {
        nat.push(format!(
            "-A {cluster} {comment} {}-j {}",
            probability(endpoints.len() - nth),
            iptables_endpoint(name, *at)
        ));
    }
    for Endpoint { at, .. } in endpoints {
        let chain = iptables_endpoint(name, *at);
        let recent = affinity.map_or_else(String::new, |_| format!("-m recent --name {chain} --set "));
        nat.push(format!("-A {chain} -s {} {comment} -j KUBE-MARK-MASQ", at.ip()));
        nat.push(format!(
            "-A {chain} -p tcp {comment} {recent}-m tcp -j DNAT --to-destination {at}"
        ));
        chains.insert(chain);
    }
}
