//! iptables mode: chains of rules, with iptables-nft or iptables-legacy.

mod old;
mod part;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result};

use self::part::{CANARY, NEW, jump_rule, probability};
use super::super::{modules, tool};
use super::names::{ServiceChains, iptables_endpoint};
use super::plan::{CLUSTER_PORT, Endpoint, Plan, ServicePort};
use crate::scenario::{Family, Policy, Version, address};

/// The sysctls that kube-proxy sets to 1: services are available at 127.0.0.1 too.
pub(super) const SYSCTLS: &[&str] = &["net.ipv4.conf.all.route_localnet"];

/// The legacy tables; each is a module. Those of nftables are loaded at boot.
const LEGACY_TABLES: [&str; 3] = ["mangle", "nat", "filter"];

/// The counters of dropped and accepted packets that two of the rules update.
const COUNTERS: [&str; 2] = ["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"];

/// Jumps from the kernel's chains: table, chain, from where, comment, match. kube-proxy inserts each at the
/// top, so the last one comes first.
const JUMPS: [(&str, &str, &str, &str, &str); 14] = [
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
        "KUBE-NODEPORTS",
        "INPUT",
        "kubernetes health check service ports",
        "",
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
    (
        "filter",
        "KUBE-PROXY-FIREWALL",
        "INPUT",
        "kubernetes load balancer firewall",
        NEW,
    ),
    (
        "filter",
        "KUBE-PROXY-FIREWALL",
        "OUTPUT",
        "kubernetes load balancer firewall",
        NEW,
    ),
    (
        "filter",
        "KUBE-PROXY-FIREWALL",
        "FORWARD",
        "kubernetes load balancer firewall",
        NEW,
    ),
    ("filter", "KUBE-FIREWALL", "INPUT", "", ""),
    ("filter", "KUBE-FIREWALL", "OUTPUT", "", ""),
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

/// Fixed chains of the filter table.
const FILTER_CHAINS: [&str; 7] = [
    "KUBE-NODEPORTS",
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FIREWALL",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    CANARY,
];

/// Fixed chains of the nat table.
const NAT_CHAINS: [&str; 5] = [
    "KUBE-NODEPORTS",
    "KUBE-SERVICES",
    "KUBE-MARK-MASQ",
    "KUBE-POSTROUTING",
    CANARY,
];

/// The iptables that writes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// iptables-nft.
    Nft,
    /// iptables-legacy.
    Legacy,
}

/// The rules in the kernel, and the iptables that writes them.
#[derive(Debug)]
pub(super) struct Iptables {
    backend: Backend,
    /// The chains of services and endpoints; `None` before the first sync.
    chains: Option<BTreeSet<String>>,
}

impl Iptables {
    pub(super) const fn new(backend: Backend) -> Self {
        Self {
            backend,
            chains: None,
        }
    }

    /// Writes all rules, and removes chains that are no longer needed.
    pub(super) fn sync(&mut self, plan: &Plan) -> Result<()> {
        if self.chains.is_none() {
            self.prepare(plan.family)?;
        }
        let tool = match self.backend {
            Backend::Nft => "tables-restore",
            Backend::Legacy => "tables-legacy-restore",
        };
        let command = format!("{}{tool} --noflush --counters", plan.family.word());
        let before = self.chains.as_ref();
        let (rules, chains) = match plan.version {
            Version::V1_20 => old::rules(plan, before),
            Version::V1_30 => {
                let (rules, chains) = rules(plan, before);
                (without_counters(&rules), chains)
            }
            Version::V1_33 | Version::V1_36 => rules(plan, before),
        };
        tool::run_with_input(&command, &rules).context("cannot write the rules")?;
        self.chains = Some(chains);
        Ok(())
    }

    fn prepare(&self, family: Family) -> Result<()> {
        if self.backend == Backend::Legacy {
            let module = |table| format!("{}table_{table}", family.word());
            LEGACY_TABLES
                .iter()
                .try_for_each(|table| modules::probe(&module(table)))?;
        }
        modules::probe("nfnetlink_acct")?;
        modules::probe("xt_nfacct")?;
        for counter in COUNTERS {
            tool::run(&format!("nfacct add {counter}"))?;
        }
        Ok(())
    }
}

/// The input of `iptables-restore`, and the names of its service and endpoint chains.
fn rules(plan: &Plan, before: Option<&BTreeSet<String>>) -> (String, BTreeSet<String>) {
    let (mut filter, mut nat) = (Vec::new(), fixed_nat());
    let mut chains = BTreeSet::new();
    for service_port in &plan.service_ports {
        let mut writer = Writer {
            service_port,
            family: plan.family,
            of: ServiceChains::iptables(&service_port.name),
            chains: &mut chains,
            filter: &mut filter,
            nat: &mut nat,
        };
        writer.write();
    }
    // IPv6 NodePorts never work on the loopback address.
    let not_loopback = match plan.family {
        Family::Ipv4 => "",
        Family::Ipv6 => "! -d ::1/128 ",
    };
    nat.push(format!(
        "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in \
         this chain\" -m addrtype --dst-type LOCAL {not_loopback}-j KUBE-NODEPORTS"
    ));
    filter.extend(fixed_filter(plan.family));

    let mut text = String::new();
    let mut table = |name: &str, chains: Vec<&str>, rules: &[String]| {
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
            text += rule;
            text += "\n";
        }
        text += "COMMIT\n";
    };
    table("filter", FILTER_CHAINS.to_vec(), &filter);
    // A chain that the input declares is flushed, and an empty chain can be deleted.
    let none = BTreeSet::new();
    let stale: Vec<&String> = before.unwrap_or(&none).difference(&chains).collect();
    nat.extend(stale.iter().map(|chain| format!("-X {chain}")));
    let all = NAT_CHAINS.into_iter().chain(chains.iter().map(String::as_str));
    table(
        "nat",
        all.chain(stale.iter().map(|chain| chain.as_str())).collect(),
        &nat,
    );
    table("mangle", vec![CANARY], &[]);
    (text, chains)
}

/// The same rules as 1.30 writes them: without counters, and without separate rules for the loopback address.
fn without_counters(rules: &str) -> String {
    let [invalid, localhost] = COUNTERS.map(|name| format!("-m nfacct --nfacct-name {name} "));
    let lines = rules.lines().filter(|line| !line.contains(&localhost));
    lines.map(|line| line.replace(&invalid, "") + "\n").collect()
}

fn fixed_nat() -> Vec<String> {
    [
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE \
         --random-fully",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn fixed_filter(family: Family) -> Vec<String> {
    let [invalid, _] = COUNTERS;
    let localnet = "-A KUBE-FIREWALL -m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s \
                    127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
    let mut rules = Vec::new();
    if family == Family::Ipv4 {
        rules.push(localnet.to_owned());
    }
    rules.extend([
        format!("-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name {invalid} -j DROP"),
        "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT"
            .to_owned(),
        "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate \
         RELATED,ESTABLISHED -j ACCEPT"
            .to_owned(),
    ]);
    rules
}

/// Writes the rules of one service.
struct Writer<'a> {
    service_port: &'a ServicePort,
    family: Family,
    of: ServiceChains,
    chains: &'a mut BTreeSet<String>,
    filter: &'a mut Vec<String>,
    nat: &'a mut Vec<String>,
}

impl Writer<'_> {
    fn write(&mut self) {
        let ServicePort {
            name,
            cluster_ip,
            node_port,
            external,
            internal,
            ..
        } = self.service_port;
        let (of, service_port, pods) = (self.of.clone(), self.service_port, address::pods(self.family));
        let chain = |policy: Policy| match policy {
            Policy::Cluster => &of.cluster,
            Policy::Local => &of.local,
        };
        let to_cluster_ip = format!("-m tcp -p tcp -d {cluster_ip} --dport {CLUSTER_PORT}");
        let no_endpoint = || match service_port.endpoints.as_slice() {
            [] => ("has no endpoints", "REJECT"),
            _ => ("has no local endpoints", "DROP"),
        };

        let internal_chain = chain(*internal);
        if service_port.allowed(*internal).is_empty() {
            let (why, verdict) = no_endpoint();
            self.filter.push(format!(
                "-A KUBE-SERVICES -m comment --comment \"{name} {why}\" {to_cluster_ip} -j {verdict}"
            ));
        } else {
            self.nat.push(format!(
                "-A KUBE-SERVICES -m comment --comment \"{name} cluster IP\" {to_cluster_ip} -j {internal_chain}"
            ));
        }
        if !service_port.endpoints.is_empty() {
            let [_, localhost] = COUNTERS;
            let at_localhost = ("-d 127.0.0.0/8 ", format!("-m nfacct --nfacct-name {localhost} "));
            let at_localhost = (self.family == Family::Ipv4).then_some(at_localhost);
            for (only, counter) in at_localhost.into_iter().chain([("", String::new())]) {
                self.nat.push(format!(
                    "-A KUBE-NODEPORTS -m comment --comment {name} -m tcp -p tcp {only}--dport {node_port} \
                     {counter}-j {}",
                    of.external
                ));
            }
        }
        if service_port.allowed(*external).is_empty() {
            let (why, verdict) = no_endpoint();
            self.filter.push(format!(
                "-A KUBE-EXTERNAL-SERVICES -m comment --comment \"{name} {why}\" -m addrtype --dst-type LOCAL \
                 -m tcp -p tcp --dport {node_port} -j {verdict}"
            ));
        }
        if !service_port.allowed(*internal).is_empty() {
            self.nat.push(format!(
                "-A {internal_chain} -m comment --comment \"{name} cluster IP\" {to_cluster_ip} ! -s {pods} \
                 -j KUBE-MARK-MASQ"
            ));
        }
        if service_port.endpoints.is_empty() {
            return;
        }
        self.external();
        self.pick_endpoint(&of.cluster, &service_port.endpoints);
        if [*internal, *external].contains(&Policy::Local) {
            self.pick_endpoint(&of.local, &service_port.allowed(Policy::Local));
        }
        for endpoint in &service_port.endpoints {
            self.endpoint(*endpoint);
        }
    }

    /// The rules for connections from outside, before a pod is chosen.
    fn external(&mut self) {
        let ServicePort { name, external, .. } = self.service_port;
        let pods = address::pods(self.family);
        let ServiceChains {
            cluster,
            local,
            external: chain,
        } = &self.of;
        self.chains.insert(chain.clone());
        let what = format!("for {name} external destinations\"");
        match external {
            Policy::Cluster => {
                self.nat.push(format!(
                    "-A {chain} -m comment --comment \"masquerade traffic {what} -j KUBE-MARK-MASQ"
                ));
                self.nat.push(format!("-A {chain} -j {cluster}"));
            }
            Policy::Local => {
                let from_node = "-m addrtype --src-type LOCAL";
                self.nat.extend([
                    format!("-A {chain} -m comment --comment \"pod traffic {what} -s {pods} -j {cluster}"),
                    format!(
                        "-A {chain} -m comment --comment \"masquerade LOCAL traffic {what} {from_node} \
                         -j KUBE-MARK-MASQ"
                    ),
                    format!(
                        "-A {chain} -m comment --comment \"route LOCAL traffic {what} {from_node} -j {cluster}"
                    ),
                ]);
                if !self.service_port.allowed(Policy::Local).is_empty() {
                    self.nat.push(format!("-A {chain} -j {local}"));
                }
            }
        }
    }

    /// The rules that choose a pod: the client's previous one, or a random one.
    fn pick_endpoint(&mut self, chain: &str, endpoints: &[Endpoint]) {
        let name = &self.service_port.name;
        if endpoints.is_empty() {
            return;
        }
        self.chains.insert(chain.to_owned());
        let rule = |at, matches: &str| {
            let endpoint = iptables_endpoint(name, at);
            format!("-A {chain} -m comment --comment \"{name} -> {at}\" {matches}-j {endpoint}")
        };
        if let Some(seconds) = self.service_port.affinity {
            for Endpoint { at, .. } in endpoints {
                let list = iptables_endpoint(name, *at);
                let matches = format!("-m recent --name {list} --rcheck --seconds {seconds} --reap ");
                self.nat.push(rule(*at, &matches));
            }
        }
        for (nth, Endpoint { at, .. }) in endpoints.iter().enumerate() {
            self.nat.push(rule(*at, &probability(endpoints.len() - nth)));
        }
    }

    /// The DNAT to a pod.
    fn endpoint(&mut self, Endpoint { at, .. }: Endpoint) {
        let name = &self.service_port.name;
        let chain = iptables_endpoint(name, at);
        let recent = match self.service_port.affinity {
            Some(_) => format!("-m recent --name {chain} --set "),
            None => String::new(),
        };
        self.nat.push(format!(
            "-A {chain} -m comment --comment {name} -s {} -j KUBE-MARK-MASQ",
            at.ip()
        ));
        self.nat.push(format!(
            "-A {chain} -m comment --comment {name} {recent}-m tcp -p tcp -j DNAT --to-destination {at}"
        ));
        self.chains.insert(chain);
    }
}

#[cfg(test)]
mod tests;
