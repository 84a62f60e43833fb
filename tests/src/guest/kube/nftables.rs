//! nftables mode: one table, with maps from addresses and ports to service chains.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::super::tool;
use super::names::{ServiceChains, nftables_endpoint};
use super::plan::{CLUSTER_PORT, Endpoint, Plan, ServicePort};
use crate::scenario::{Family, Policy, Version, address};

/// The networks of pods and services.
const PODS: &str = address::pods(Family::Ipv4);
const SERVICES: &str = address::services(Family::Ipv4);

/// The table's family and name, as in every command.
const TABLE: &str = "ip kube-proxy";

/// Sets and maps: kind, name, type, comment.
const MAPS: [(&str, &str, &str, &str); 7] = [
    ("set", "cluster-ips", "ipv4_addr", "Active ClusterIPs"),
    (
        "set",
        "nodeport-ips",
        "ipv4_addr",
        "IPs that accept NodePort traffic",
    ),
    (
        "map",
        "firewall-ips",
        TO_VERDICT,
        "destinations that are subject to LoadBalancerSourceRanges",
    ),
    (
        "map",
        "no-endpoint-nodeports",
        PORT_TO_VERDICT,
        "vmap to drop or reject packets to service nodeports with no endpoints",
    ),
    (
        "map",
        "no-endpoint-services",
        TO_VERDICT,
        "vmap to drop or reject packets to services with no endpoints",
    ),
    (
        "map",
        "service-ips",
        TO_VERDICT,
        "ClusterIP, ExternalIP and LoadBalancer IP traffic",
    ),
    ("map", "service-nodeports", PORT_TO_VERDICT, "NodePort traffic"),
];

const TO_VERDICT: &str = "ipv4_addr . inet_proto . inet_service : verdict";

const PORT_TO_VERDICT: &str = "inet_proto . inet_service : verdict";

/// Chains, and the kernel hook of those that have one.
const CHAINS: [(&str, &str); 16] = [
    (
        "filter-prerouting-pre-dnat",
        "{ type filter hook prerouting priority -110 ; }",
    ),
    (
        "filter-output-pre-dnat",
        "{ type filter hook output priority -110 ; }",
    ),
    ("filter-input", "{ type filter hook input priority 0 ; }"),
    ("filter-forward", "{ type filter hook forward priority 0 ; }"),
    ("filter-output", "{ type filter hook output priority 0 ; }"),
    ("nat-prerouting", "{ type nat hook prerouting priority -100 ; }"),
    ("nat-output", "{ type nat hook output priority -100 ; }"),
    ("nat-postrouting", "{ type nat hook postrouting priority 100 ; }"),
    ("nodeport-endpoints-check", ""),
    ("service-endpoints-check", ""),
    ("firewall-check", ""),
    ("cluster-ips-check", ""),
    ("services", ""),
    ("masquerading", ""),
    ("mark-for-masquerade", ""),
    (
        "reject-chain",
        "{ comment \"helper for @no-endpoint-services / @no-endpoint-nodeports\" ; }",
    ),
];

/// The fixed rules: chain, rule.
const RULES: [(&str, &str); 22] = [
    ("filter-input", "ct state new jump nodeport-endpoints-check"),
    ("filter-input", "ct state new jump service-endpoints-check"),
    ("filter-forward", "ct state new jump service-endpoints-check"),
    ("filter-forward", "ct state new jump cluster-ips-check"),
    ("filter-output", "ct state new jump service-endpoints-check"),
    ("filter-output", "ct state new jump cluster-ips-check"),
    ("filter-prerouting-pre-dnat", "ct state new jump firewall-check"),
    ("filter-output-pre-dnat", "ct state new jump firewall-check"),
    ("nat-output", "jump services"),
    ("nat-prerouting", "jump services"),
    ("nat-postrouting", "jump masquerading"),
    ("mark-for-masquerade", "mark set mark or 0x4000"),
    ("masquerading", "mark and 0x4000 == 0 return"),
    ("masquerading", "mark set mark xor 0x4000"),
    ("masquerading", "masquerade fully-random"),
    (
        "cluster-ips-check",
        "ip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"",
    ),
    (
        "service-endpoints-check",
        "ip daddr . meta l4proto . th dport vmap @no-endpoint-services",
    ),
    (
        "nodeport-endpoints-check",
        "ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports",
    ),
    (
        "firewall-check",
        "ip daddr . meta l4proto . th dport vmap @firewall-ips",
    ),
    ("services", "ip daddr . meta l4proto . th dport vmap @service-ips"),
    (
        "services",
        "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
    ),
    ("reject-chain", "reject"),
];

/// The set of connections from a pod to itself, in 1.36.
const HAIRPIN: &str = "hairpin-connections";

/// The rules that 1.36 writes instead of a chain that marks: chain, rule.
const RULES_1_36: [(&str, &str); 2] = [
    (
        "masquerading",
        "meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random",
    ),
    (
        "masquerading",
        "ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade \
         fully-random",
    ),
];

/// Whether each endpoint of the service has a chain of its own. In 1.36, only services with session affinity
/// have such chains.
fn has_endpoint_chains(version: Version, service_port: &ServicePort) -> bool {
    version != Version::V1_36 || service_port.affinity.is_some()
}

/// Writes the table.
pub(super) fn sync(plan: &Plan) -> Result<()> {
    tool::run_with_input("nft -f -", &for_family(plan.family, &all(plan)))
        .context("cannot write kube-proxy's table")?;
    Ok(())
}

/// Writes the changes of one service.
pub(super) fn change(plan: &Plan, before: &ServicePort, after: &ServicePort) -> Result<()> {
    let text = difference(plan.version, before, after);
    tool::run_with_input("nft -f -", &for_family(plan.family, &text))
        .context("cannot change kube-proxy's table")?;
    Ok(())
}

/// The table is identical for both families except for these words. It is written for IPv4; addresses of
/// services and endpoints already are of the family.
fn for_family(family: Family, text: &str) -> String {
    let words = [
        (TABLE, "ip6 kube-proxy"),
        ("ip saddr", "ip6 saddr"),
        ("ip daddr", "ip6 daddr"),
        ("dnat ip to", "dnat ip6 to"),
        ("ipv4_addr", "ipv6_addr"),
        (PODS, address::pods(Family::Ipv6)),
        (SERVICES, address::services(Family::Ipv6)),
    ];
    match family {
        Family::Ipv4 => text.to_owned(),
        Family::Ipv6 => words
            .into_iter()
            .fold(text.to_owned(), |text, (ipv4, ipv6)| text.replace(ipv4, ipv6)),
    }
}

fn all(plan: &Plan) -> String {
    let mut lines = vec![format!(
        "add table {TABLE} {{ comment \"rules for kube-proxy\" ; }}"
    )];
    for (kind, name, of, comment) in MAPS {
        lines.push(format!(
            "add {kind} {TABLE} {name} {{ type {of} ; comment \"{comment}\" ; }}"
        ));
    }
    let is_1_36 = plan.version == Version::V1_36;
    let differs = |chain: &str| is_1_36 && ["masquerading", "mark-for-masquerade"].contains(&chain);
    let fixed_chains = CHAINS
        .iter()
        .filter(|(name, _)| !is_1_36 || *name != "mark-for-masquerade");
    lines.extend(fixed_chains.map(|(name, hook)| format!("add chain {TABLE} {name} {hook}")));
    if is_1_36 {
        lines.push(format!(
            "add set {TABLE} {HAIRPIN} {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service ; comment \
             \"service hairpin connections\" ; }}"
        ));
        lines.push(format!(
            "add rule {TABLE} services ip daddr @cluster-ips ip saddr != {PODS} meta mark set meta mark or \
             0x4000 comment \"masquerade clusterIP traffic from outside cluster\""
        ));
    }
    let fixed = RULES.iter().filter(|(chain, _)| !differs(chain));
    let fixed = fixed.chain(RULES_1_36.iter().filter(|(chain, _)| differs(chain)));
    lines.extend(fixed.map(|(chain, rule)| format!("add rule {TABLE} {chain} {rule}")));
    lines.push(format!(
        "add rule {TABLE} cluster-ips-check ip daddr {{ {SERVICES} }} drop comment \"Drop traffic to unallocated \
         ClusterIPs\""
    ));
    for ip in &plan.node {
        lines.push(format!("add element {TABLE} nodeport-ips {{ {ip} }}"));
    }
    for service_port in &plan.service_ports {
        lines.extend(chains(plan.version, service_port));
        lines.extend(elements(plan.version, service_port).iter().map(Element::add));
    }
    lines.join("\n") + "\n"
}

fn difference(version: Version, before: &ServicePort, after: &ServicePort) -> String {
    let (old, new) = (elements(version, before), elements(version, after));
    // A chain that is no longer needed is flushed. kube-proxy deletes it later.
    let gone = before
        .endpoints
        .iter()
        .filter(|one| {
            has_endpoint_chains(version, before) && after.endpoints.iter().all(|other| other.at != one.at)
        })
        .map(|one| {
            format!(
                "flush chain {TABLE} endpoint-{}",
                nftables_endpoint(&before.name, one.at)
            )
        });
    let mut lines = chains(version, after);
    lines.extend(old.difference(&new).map(Element::delete));
    lines.extend(new.difference(&old).map(Element::add));
    lines.extend(gone);
    lines.join("\n") + "\n"
}

/// An element of a set or a map.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Element {
    map: &'static str,
    key: String,
    comment: Option<String>,
    verdict: Option<String>,
}

impl Element {
    fn add(&self) -> String {
        let Self {
            map,
            key,
            comment,
            verdict,
        } = self;
        let comment = comment.as_ref().map(|text| format!(" comment \"{text}\""));
        let verdict = verdict.as_ref().map(|verdict| format!(" : {verdict}"));
        let (comment, verdict) = (comment.unwrap_or_default(), verdict.unwrap_or_default());
        format!("add element {TABLE} {map} {{ {key}{comment}{verdict} }}")
    }

    fn delete(&self) -> String {
        format!("delete element {TABLE} {} {{ {} }}", self.map, self.key)
    }
}

/// The elements of a service.
fn elements(version: Version, service_port: &ServicePort) -> BTreeSet<Element> {
    let ServicePort {
        name,
        cluster_ip,
        node_port,
        external,
        internal,
        endpoints,
        ..
    } = service_port;
    let of = ServiceChains::nftables(name);
    let mut elements = BTreeSet::new();
    let mut add = |map, key: &str, comment: Option<&String>, verdict: Option<&str>| {
        elements.insert(Element {
            map,
            key: key.to_owned(),
            comment: comment.cloned(),
            verdict: verdict.map(str::to_owned),
        });
    };
    let none = if endpoints.is_empty() {
        "goto reject-chain"
    } else {
        "drop"
    };
    let internal_chain = match internal {
        Policy::Cluster => &of.cluster,
        Policy::Local => &of.local,
    };
    let address = format!("{cluster_ip} . tcp . {CLUSTER_PORT}");
    let port = format!("tcp . {node_port}");
    add("cluster-ips", &cluster_ip.to_string(), None, None);
    if version == Version::V1_36 {
        for Endpoint { at, .. } in service_port.allowed(Policy::Local) {
            let ip = at.ip();
            add(HAIRPIN, &format!("{ip} . {ip} . tcp . {}", at.port()), None, None);
        }
    }
    if service_port.allowed(*internal).is_empty() {
        add("no-endpoint-services", &address, Some(name), Some(none));
    } else {
        add(
            "service-ips",
            &address,
            None,
            Some(&format!("goto {internal_chain}")),
        );
    }
    if !endpoints.is_empty() {
        add(
            "service-nodeports",
            &port,
            None,
            Some(&format!("goto {}", of.external)),
        );
    }
    if service_port.allowed(*external).is_empty() {
        add("no-endpoint-nodeports", &port, Some(name), Some(none));
    }
    elements
}

/// The chains of a service and of its endpoints, with their rules.
fn chains(version: Version, service_port: &ServicePort) -> Vec<String> {
    let ServicePort {
        name,
        cluster_ip,
        external,
        internal,
        affinity,
        endpoints,
        ..
    } = service_port;
    let of = ServiceChains::nftables(name);
    let mut chains = Chains::default();
    if endpoints.is_empty() {
        return chains.lines();
    }
    let on_this_node = service_port.allowed(Policy::Local);
    let by_map = !has_endpoint_chains(version, service_port);
    for endpoint in endpoints.iter().filter(|_| !by_map) {
        chains.endpoint(version, name, *endpoint, *affinity);
    }
    chains.make(&of.cluster);
    if !on_this_node.is_empty() && [*internal, *external].contains(&Policy::Local) {
        chains.make(&of.local);
    }
    let to_cluster_ip = match internal {
        Policy::Cluster => Some(&of.cluster),
        Policy::Local => (!on_this_node.is_empty()).then_some(&of.local),
    };
    let mark = match version {
        Version::V1_36 => "meta mark set meta mark or 0x4000",
        _ => "jump mark-for-masquerade",
    };
    if let Some(chain) = to_cluster_ip.filter(|_| version != Version::V1_36) {
        let rule = format!("ip daddr {cluster_ip} ip saddr != {PODS} jump mark-for-masquerade");
        chains.rule(chain, &rule);
    }
    chains.make(&of.external);
    match external {
        Policy::Cluster => {
            chains.rule(&of.external, mark);
            chains.rule(&of.external, &format!("goto {}", of.cluster));
        }
        Policy::Local => {
            let cluster = &of.cluster;
            for rule in [
                format!("ip saddr {PODS} goto {cluster} comment \"short-circuit pod traffic\""),
                format!("fib saddr type local {mark} comment \"masquerade local traffic\""),
                format!("fib saddr type local goto {cluster} comment \"short-circuit local traffic\""),
            ] {
                chains.rule(&of.external, &rule);
            }
            if !on_this_node.is_empty() {
                chains.rule(&of.external, &format!("goto {}", of.local));
            }
        }
    }
    let mut pick = |chain: &str, endpoints: &[Endpoint]| {
        if by_map {
            chains.translate(chain, endpoints);
        } else {
            chains.pick_endpoint(name, chain, endpoints, *affinity);
        }
    };
    pick(&of.cluster, endpoints);
    if [*internal, *external].contains(&Policy::Local) {
        pick(&of.local, &on_this_node);
    }
    chains.lines()
}

/// Chains under construction: all of them are created before the first rule refers to one.
#[derive(Debug, Default)]
struct Chains {
    made: Vec<String>,
    rules: Vec<String>,
}

impl Chains {
    fn lines(self) -> Vec<String> {
        self.made.into_iter().chain(self.rules).collect()
    }

    fn make(&mut self, name: &str) {
        self.made.push(format!("add chain {TABLE} {name}"));
        self.made.push(format!("flush chain {TABLE} {name}"));
    }

    fn rule(&mut self, chain: &str, rule: &str) {
        self.rules.push(format!("add rule {TABLE} {chain} {rule}"));
    }

    /// The DNAT to one of these endpoints, at random.
    fn translate(&mut self, chain: &str, endpoints: &[Endpoint]) {
        if endpoints.is_empty() {
            return;
        }
        let targets = endpoints
            .iter()
            .enumerate()
            .map(|(nth, Endpoint { at, .. })| format!("{nth} : {} . {}", at.ip(), at.port()));
        let targets: Vec<String> = targets.collect();
        let rule = format!(
            "meta l4proto tcp dnat ip to numgen random mod {} map {{ {} }}",
            targets.len(),
            targets.join(" , ")
        );
        self.rule(chain, &rule);
    }

    /// The DNAT to an endpoint.
    fn endpoint(
        &mut self,
        version: Version,
        service: &str,
        Endpoint { at, .. }: Endpoint,
        affinity: Option<u32>,
    ) {
        let name = nftables_endpoint(service, at);
        let chain = format!("endpoint-{name}");
        self.make(&chain);
        if version != Version::V1_36 {
            self.rule(&chain, &format!("ip saddr {} jump mark-for-masquerade", at.ip()));
        }
        if let Some(seconds) = affinity {
            self.made.push(format!(
                "add set {TABLE} affinity-{name} {{ type ipv4_addr ; flags dynamic,timeout ; timeout {seconds}s ; }}"
            ));
            self.rule(&chain, &format!("update @affinity-{name} {{ ip saddr }}"));
        }
        self.rule(&chain, &format!("meta l4proto tcp dnat to {at}"));
    }

    /// The rules that choose an endpoint: the client's previous one, or a random one.
    fn pick_endpoint(&mut self, service: &str, chain: &str, endpoints: &[Endpoint], affinity: Option<u32>) {
        if endpoints.is_empty() {
            return;
        }
        let names = || endpoints.iter().map(|one| nftables_endpoint(service, one.at));
        if affinity.is_some() {
            for name in names() {
                self.rule(chain, &format!("ip saddr @affinity-{name} goto endpoint-{name}"));
            }
        }
        let choices = names()
            .enumerate()
            .map(|(nth, name)| format!("{nth} : goto endpoint-{name}"));
        let choices: Vec<String> = choices.collect();
        let rule = format!(
            "numgen random mod {} vmap {{ {} }}",
            choices.len(),
            choices.join(" , ")
        );
        self.rule(chain, &rule);
    }
}

#[cfg(test)]
mod tests;
