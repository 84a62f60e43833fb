//! IPVS mode: virtual services, IP sets, and the few rules for them.
//!
//! Like kube-proxy, we write a rule for an IP set only if the set has an entry.

mod old;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use super::super::tool;
use super::plan::{CLUSTER_PORT, Endpoint, Plan, ServicePort};
use crate::scenario::{Family, Policy, Version, address};

/// The sysctls that kube-proxy sets to 1. It leaves `net.ipv4.vs.conn_reuse_mode` alone on kernels from 5.9
/// and below 4.1.
pub(super) const SYSCTLS: &[&str] = &[
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
];

/// The device that makes cluster addresses local. It stays down and never sees a packet.
const DUMMY: &str = "kube-ipvs0";

/// The IP sets that kube-proxy creates, used or not: name, type.
const SETS: [(&str, &str); 17] = [
    ("KUBE-LOOP-BACK", "hash:ip,port,ip"),
    ("KUBE-CLUSTER-IP", "hash:ip,port"),
    ("KUBE-EXTERNAL-IP", "hash:ip,port"),
    ("KUBE-EXTERNAL-IP-LOCAL", "hash:ip,port"),
    ("KUBE-LOAD-BALANCER", "hash:ip,port"),
    ("KUBE-LOAD-BALANCER-FW", "hash:ip,port"),
    ("KUBE-LOAD-BALANCER-LOCAL", "hash:ip,port"),
    ("KUBE-LOAD-BALANCER-SOURCE-IP", "hash:ip,port,ip"),
    ("KUBE-LOAD-BALANCER-SOURCE-CIDR", "hash:ip,port,net"),
    ("KUBE-NODE-PORT-TCP", "bitmap:port"),
    ("KUBE-NODE-PORT-LOCAL-TCP", "bitmap:port"),
    ("KUBE-NODE-PORT-UDP", "bitmap:port"),
    ("KUBE-NODE-PORT-LOCAL-UDP", "bitmap:port"),
    ("KUBE-NODE-PORT-SCTP-HASH", "hash:ip,port"),
    ("KUBE-NODE-PORT-LOCAL-SCTP-HASH", "hash:ip,port"),
    ("KUBE-HEALTH-CHECK-NODE-PORT", "bitmap:port"),
    ("KUBE-IPVS-IPS", "hash:ip"),
];

/// The fixed rules of the nat table, before those that depend on the services.
const NAT_CHAINS: &str = "\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
";

const LOOP_BACK: &str = "\
-A KUBE-POSTROUTING -m comment --comment \"Kubernetes endpoints dst ip:port, source ip for solving hairpin \
purpose\" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
";

const NODE_PORT_LOCAL: &str = "\
-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port with externalTrafficPolicy=local\" \
-m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN
";

const NODE_PORT: &str = "\
-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port for masquerade purpose\" \
-m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
";

const NAT_END: &str = "\
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
-A KUBE-POSTROUTING -m mark ! --mark 0x00004000/0x00004000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x00004000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000
COMMIT
";

const FILTER: &str = "\
*filter
:KUBE-FORWARD - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
-A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check rules\" -j KUBE-NODE-PORT
-A FORWARD -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A OUTPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-OUT-FILTER
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x00004000/0x00004000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate \
RELATED,ESTABLISHED -j ACCEPT
-A KUBE-NODE-PORT -m comment --comment \"Kubernetes health check node port\" -m set --match-set \
KUBE-HEALTH-CHECK-NODE-PORT dst -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set KUBE-LOAD-BALANCER dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set KUBE-EXTERNAL-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set KUBE-EXTERNAL-IP-LOCAL dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set KUBE-HEALTH-CHECK-NODE-PORT dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT
COMMIT
";

/// Writes the sets, rules and virtual services of all services.
pub(super) fn sync(plan: &Plan) -> Result<()> {
    tool::run_with_input("ip -batch -", &dummy(plan)).context("cannot create kube-ipvs0")?;
    tool::run_with_input("ipset restore", &sets(plan)).context("cannot write the IP sets")?;
    let restore = format!("{}tables-restore --noflush --counters", plan.family.word());
    tool::run_with_input(&restore, &rules(plan)).context("cannot write the rules")?;
    tool::run_with_input("ipvsadm -R", &virtual_services(plan))
        .context("cannot write the virtual services")?;
    Ok(())
}

/// Changes the real servers of a service.
pub(super) fn change(plan: &Plan, before: &ServicePort, after: &ServicePort) -> Result<()> {
    // `ipvsadm -R` does not support `-d`.
    changes(plan, before, after)
        .iter()
        .try_for_each(|command| tool::run(command).map(drop))
}

fn changes(plan: &Plan, before: &ServicePort, after: &ServicePort) -> Vec<String> {
    let mut commands = Vec::new();
    let old = servers(plan, before);
    for ((address, new), (_, old)) in servers(plan, after).into_iter().zip(old) {
        let was = |one: &Endpoint| old.iter().find(|old| old.at == one.at);
        for Endpoint { at, .. } in old.iter().filter(|old| new.iter().all(|one| one.at != old.at)) {
            commands.push(format!("ipvsadm -d -t {address} -r {at}"));
        }
        for one in &new {
            let action = match was(one) {
                None => "-a",
                Some(old) if old.weight != one.weight => "-e",
                Some(_) => continue,
            };
            let Endpoint { at, weight, .. } = one;
            commands.push(format!("ipvsadm {action} -t {address} -r {at} -m -w {weight}"));
        }
    }
    commands
}

/// The virtual services of a service with their real servers: at each of the node's addresses, and at its
/// cluster address.
fn servers(plan: &Plan, service_port: &ServicePort) -> Vec<(SocketAddr, Vec<Endpoint>)> {
    let mut external = service_port.allowed(service_port.external);
    // Clients in the cluster are served even if no pod is on this node, unless the internal policy is local
    // too.
    if external.is_empty() && service_port.internal == Policy::Cluster {
        external.clone_from(&service_port.endpoints);
    }
    let ports = plan
        .node
        .iter()
        .map(|ip| (SocketAddr::new(*ip, service_port.node_port), external.clone()));
    let cluster = SocketAddr::new(service_port.cluster_ip, CLUSTER_PORT);
    ports
        .chain([(cluster, service_port.allowed(service_port.internal))])
        .collect()
}

fn dummy(plan: &Plan) -> String {
    let mut lines = format!("link add {DUMMY} type dummy\n");
    for ServicePort { cluster_ip, .. } in &plan.service_ports {
        let address = address::of_device(*cluster_ip, address::bits(*cluster_ip));
        let _ = writeln!(lines, "addr add {address} dev {DUMMY}");
    }
    lines
}

fn sets(plan: &Plan) -> String {
    let mut lines = String::new();
    let family = match plan.family {
        Family::Ipv4 => "inet",
        Family::Ipv6 => "inet6",
    };
    for (name, kind) in SETS {
        if plan.version == Version::V1_20 && old::LATER_SETS.contains(&name) {
            continue;
        }
        let options = match kind {
            "bitmap:port" => "range 0-65535".to_owned(),
            _ => format!("family {family} hashsize 1024 maxelem 65536"),
        };
        let _ = writeln!(lines, "create {name} {kind} {options}");
    }
    for service_port in &plan.service_ports {
        for Endpoint { at, .. } in service_port.allowed(Policy::Local) {
            let (ip, port): (IpAddr, u16) = (at.ip(), at.port());
            let _ = writeln!(lines, "add -exist KUBE-LOOP-BACK {ip},tcp:{port},{ip}");
        }
        let (ip, port) = (service_port.cluster_ip, service_port.node_port);
        let _ = writeln!(lines, "add KUBE-CLUSTER-IP {ip},tcp:{CLUSTER_PORT}");
        if plan.version != Version::V1_20 {
            let _ = writeln!(lines, "add KUBE-IPVS-IPS {ip}");
        }
        let _ = writeln!(lines, "add KUBE-NODE-PORT-TCP {port}");
        if service_port.external == Policy::Local {
            let _ = writeln!(lines, "add KUBE-NODE-PORT-LOCAL-TCP {port}");
        }
    }
    set_names(&lines, plan.family)
}

/// IPv6 sets have their own names, because sets of both families can coexist: `KUBE-6-`, truncated to the 31
/// characters of a set name (`pkg/proxy/ipvs/ipset.go`). Chain names do not change.
fn set_names(lines: &str, family: Family) -> String {
    if family == Family::Ipv4 {
        return lines.to_owned();
    }
    let word = |word: &str| match word.strip_prefix("KUBE-") {
        Some(rest) if SETS.iter().any(|(name, _)| *name == word) => {
            format!("KUBE-6-{rest}").chars().take(31).collect()
        }
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n";
    lines.lines().map(line).collect()
}

fn rules(plan: &Plan) -> String {
    let (chains, filter) = match plan.version {
        Version::V1_20 => (old::NAT_CHAINS, old::FILTER),
        _ => (NAT_CHAINS, FILTER),
    };
    let mut rules = chains.to_owned();
    let service_ports = &plan.service_ports;
    if service_ports
        .iter()
        .any(|service_port| !service_port.allowed(Policy::Local).is_empty())
    {
        rules += LOOP_BACK;
    }
    if service_ports
        .iter()
        .any(|service_port| service_port.external == Policy::Local)
    {
        rules += NODE_PORT_LOCAL;
    }
    rules += NODE_PORT;
    let _ = writeln!(
        rules,
        "-A KUBE-SERVICES -m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" \
         -m set --match-set KUBE-CLUSTER-IP dst,dst ! -s {} -j KUBE-MARK-MASQ",
        address::pods(plan.family)
    );
    rules += NAT_END;
    rules += filter;
    match plan.family {
        Family::Ipv4 => rules,
        Family::Ipv6 => rules_of_ipv6(&rules),
    }
}

/// Set names follow `--match-set`; a chain may have the same name.
fn rules_of_ipv6(rules: &str) -> String {
    let rules = rules.replace("127.0.0.0/8", "::1/128");
    let mut parts = rules.split("--match-set ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (set, rest) = part.split_once(' ').unwrap_or((part, ""));
        let set = set_names(set, Family::Ipv6);
        let _ = write!(out, "--match-set {} {rest}", set.trim_end());
    }
    out
}

fn virtual_services(plan: &Plan) -> String {
    let mut lines = String::new();
    for service_port in &plan.service_ports {
        let persistent = service_port
            .affinity
            .map_or_else(String::new, |seconds| format!(" -p {seconds}"));
        for (address, endpoints) in servers(plan, service_port) {
            let _ = writeln!(
                lines,
                "-A -t {address} -s {}{persistent}",
                service_port.scheduler.name()
            );
            for Endpoint { at, weight, .. } in endpoints {
                let _ = writeln!(lines, "-a -t {address} -r {at} -m -w {weight}");
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{plan, plan_of};
    use super::*;

    #[test]
    fn a_service_has_a_virtual_service_on_each_address() {
        let mut plan = plan(Policy::Cluster, Some(300));
        plan.node.push([10, 0, 0, 9].into());
        assert_eq!(
            virtual_services(&plan).lines().collect::<Vec<_>>(),
            [
                "-A -t 10.0.0.1:30080 -s rr -p 300",
                "-a -t 10.0.0.1:30080 -r 10.244.1.2:8080 -m -w 1",
                "-a -t 10.0.0.1:30080 -r 10.244.2.2:8080 -m -w 1",
                "-A -t 10.0.0.9:30080 -s rr -p 300",
                "-a -t 10.0.0.9:30080 -r 10.244.1.2:8080 -m -w 1",
                "-a -t 10.0.0.9:30080 -r 10.244.2.2:8080 -m -w 1",
                "-A -t 10.96.0.10:80 -s rr -p 300",
                "-a -t 10.96.0.10:80 -r 10.244.1.2:8080 -m -w 1",
                "-a -t 10.96.0.10:80 -r 10.244.2.2:8080 -m -w 1",
                "-A -t 10.0.0.1:30081 -s rr -p 300",
                "-A -t 10.0.0.9:30081 -s rr -p 300",
                "-A -t 10.96.0.11:80 -s rr -p 300",
            ]
        );
    }

    #[test]
    fn only_changes_are_applied() {
        let plan = plan(Policy::Local, None);
        let before = &plan.service_ports[0];
        let mut after = before.clone();
        after.endpoints[0].weight = 0;
        assert_eq!(
            changes(&plan, before, &after),
            [
                "ipvsadm -e -t 10.0.0.1:30080 -r 10.244.1.2:8080 -m -w 0",
                "ipvsadm -e -t 10.96.0.10:80 -r 10.244.1.2:8080 -m -w 0",
            ]
        );
        after.endpoints.remove(0);
        // No pod is on this node any more, so the port gets the remote one.
        assert_eq!(
            changes(&plan, before, &after),
            [
                "ipvsadm -d -t 10.0.0.1:30080 -r 10.244.1.2:8080",
                "ipvsadm -a -t 10.0.0.1:30080 -r 10.244.2.2:8080 -m -w 1",
                "ipvsadm -d -t 10.96.0.10:80 -r 10.244.1.2:8080",
            ]
        );
        after.internal = Policy::Local;
        assert!(
            servers(&plan, &after)
                .iter()
                .all(|(_, servers)| servers.is_empty())
        );
    }

    #[test]
    fn with_the_local_policy_the_ports_local_rule_comes_first() {
        let (cluster, local) = (plan(Policy::Cluster, None), plan(Policy::Local, None));
        assert!(!sets(&cluster).contains("add KUBE-NODE-PORT-LOCAL-TCP"));
        assert!(sets(&local).contains("add KUBE-NODE-PORT-LOCAL-TCP 30080\n"));
        assert!(sets(&local).contains("add KUBE-NODE-PORT-TCP 30080\n"));
        assert!(!sets(&local).contains("KUBE-LOOP-BACK 10.244.2.2"));
        assert!(!rules(&cluster).contains("KUBE-NODE-PORT-LOCAL-TCP"));
        let rules = rules(&local);
        let return_first = rules.find("KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN").unwrap();
        let mark_then = rules.find("KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ").unwrap();
        assert!(return_first < mark_then);
    }

    #[test]
    fn every_set_in_a_rule_is_created() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let plan = plan_of(family, Policy::Local, None);
            let sets = sets(&plan);
            for rule in rules(&plan).lines() {
                if let Some((_, set)) = rule.split_once("--match-set ") {
                    let set = set.split(' ').next().unwrap();
                    assert!(sets.contains(&format!("create {set} ")), "{rule}");
                }
            }
        }
    }

    /// The rules of a real kube-proxy, and those of its kubelet.
    fn real_rules(name: &str) -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("real-rules")
            .join(name);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn every_rule_and_set_is_one_of_the_real_kube_proxy() {
        let dumps = [
            (Version::V1_20, "1.20-k5.10pre59-ipvs"),
            (Version::V1_36, "1.36-k6.12-ipvs"),
        ];
        for (version, dump) in dumps {
            let mut plan = plan(Policy::Local, None);
            plan.version = version;
            let real = real_rules(&format!("{dump}.rules"));
            for rule in rules(&plan).lines().filter(|line| line.starts_with("-A ")) {
                // As iptables-save prints them.
                let rule = rule
                    .replace("0x00004000", "0x4000")
                    .replace("--xor-mark 0x4000", "--set-xmark 0x4000/0x0")
                    .replace("--or-mark 0x4000", "--set-xmark 0x4000/0x4000");
                let rule = match rule.split_once(" ! -s 10.244.0.0/16") {
                    Some((before, after)) => {
                        let rest = before.trim_start_matches("-A KUBE-SERVICES");
                        format!("-A KUBE-SERVICES ! -s 10.244.0.0/16{rest}{after}")
                    }
                    None => rule,
                };
                assert!(
                    real.contains(&rule),
                    "not a rule of kube-proxy {version:?}: {rule}"
                );
            }
            let real = real_rules(&format!("{dump}.ipset"));
            for set in sets(&plan).lines().filter(|line| line.starts_with("create ")) {
                assert!(real.contains(set), "not a set of kube-proxy {version:?}: {set}");
            }
        }
    }

    #[test]
    fn ipv6_sets_have_their_own_names_and_chains_do_not() {
        let plan = plan_of(Family::Ipv6, Policy::Local, None);
        let (sets, rules) = (sets(&plan), rules(&plan));
        assert!(sets.contains("create KUBE-6-CLUSTER-IP hash:ip,port family inet6 "));
        assert!(sets.contains("create KUBE-6-NODE-PORT-LOCAL-SCTP-HAS hash:ip,port "));
        assert!(sets.contains("add KUBE-6-CLUSTER-IP fd00:10:96::10,tcp:80\n"));
        assert!(rules.contains("-A KUBE-SERVICES -s ::1/128 -j RETURN\n"));
        assert!(rules.contains("-A KUBE-NODE-PORT -p tcp "));
        assert!(rules.contains("--match-set KUBE-6-NODE-PORT-TCP dst -j KUBE-MARK-MASQ\n"));
        let first = virtual_services(&plan).lines().nth(1).unwrap().to_owned();
        assert_eq!(
            first,
            "-a -t [fd00:10::1]:30080 -r [fd00:10:244:1::2]:8080 -m -w 1"
        );
    }
}
