//! What kube-proxy does to a node in IPVS mode, for the services of a scenario.
//!
//! The names, the order of the rules, the comments and the options are kube-proxy's own
//! (`pkg/proxy/ipvs/proxier.go` of Kubernetes 1.33). As it does, we write a rule for an IP set only where the set
//! has an entry. It is configured with the pods' network as `--cluster-cidr` and with the node's address towards
//! the clients as its only `--nodeport-addresses`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use super::sysctl::Changed;
use super::tool;
use crate::scenario::{Family, address};
use crate::scenario::{Membership, Pod, RealServer, Removal, Service, Topology};

/// The sysctls that kube-proxy sets. It leaves `net.ipv4.vs.conn_reuse_mode` as it is on kernels from 5.9 on and
/// below 4.1. For IPv6, forwarding is the network plugin's to switch on.
const SYSCTLS: [&str; 4] = [
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.ipv4.ip_forward",
];

/// The device that makes cluster addresses local ones. It stays down and never sees a packet.
const DUMMY: &str = "kube-ipvs0";

/// The port of every service on its cluster address.
const CLUSTER_PORT: u16 = 80;

/// The IP sets that kube-proxy makes, used or not: name, kind.
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

/// Rules of the nat table that are there whatever the services are, around those that depend on them.
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

/// Sets what kube-proxy sets when it starts.
pub(super) fn set_sysctls(family: Family, changed: &mut Changed) -> Result<()> {
    SYSCTLS.iter().try_for_each(|name| changed.set(name, 1))?;
    match family {
        Family::Ipv4 => Ok(()),
        Family::Ipv6 => changed.set(family.forwarding(), 1),
    }
}

/// Writes the sets, rules and virtual servers of all services.
pub(super) fn sync(topology: &Topology) -> Result<()> {
    tool::feed("ip -batch -", &dummy(topology)).context("cannot make kube-ipvs0")?;
    tool::feed("ipset restore", &sets(topology)).context("cannot write the IP sets")?;
    let restore = format!("{}tables-restore --noflush --counters", topology.family.word());
    tool::feed(&restore, &rules(topology)).context("cannot write the rules")?;
    tool::feed("ipvsadm -R", &virtual_servers(topology)).context("cannot write the virtual servers")?;
    Ok(())
}

/// Changes the weight of a real server.
pub(super) fn set_weight(topology: &Topology, change: &Membership) -> Result<()> {
    real_server(topology, "-e", change)
}

/// Adds a real server.
pub(super) fn add_real_server(topology: &Topology, change: &Membership) -> Result<()> {
    real_server(topology, "-a", change)
}

/// Removes a real server.
pub(super) fn remove_real_server(topology: &Topology, removal: &Removal) -> Result<()> {
    let (service, pod) = find(topology, removal.service.as_deref(), &removal.pod)?;
    // `ipvsadm -R` knows no `-d`.
    for address in addresses(topology, service) {
        tool::run(&format!("ipvsadm -d -t {address} -r {}", endpoint(pod)))?;
    }
    Ok(())
}

fn real_server(topology: &Topology, action: &str, change: &Membership) -> Result<()> {
    let Membership { service, pod, weight } = change;
    let (service, pod) = find(topology, service.as_deref(), pod)?;
    for address in addresses(topology, service) {
        let real = format!("{} -m -w {weight}", endpoint(pod));
        tool::run(&format!("ipvsadm {action} -t {address} -r {real}"))?;
    }
    Ok(())
}

fn find<'a>(topology: &'a Topology, service: Option<&str>, pod: &str) -> Result<(&'a Service, &'a Pod)> {
    let service = topology.service(service).context("there is no such service")?;
    let pod = topology
        .pod(pod)
        .with_context(|| format!("there is no pod {pod}"))?;
    Ok((service, pod))
}

/// Where a pod listens.
fn endpoint(pod: &Pod) -> SocketAddr {
    SocketAddr::new(pod.address, pod.port)
}

/// The virtual servers of a service: on the node's address, on its cluster address.
fn addresses(topology: &Topology, service: &Service) -> [SocketAddr; 2] {
    [
        SocketAddr::new(topology.node_address(), service.node_port),
        SocketAddr::new(cluster_ip(topology, service), CLUSTER_PORT),
    ]
}

fn cluster_ip(topology: &Topology, service: &Service) -> IpAddr {
    let nth = topology.services.iter().position(|other| other == service);
    address::cluster_ip(topology.family, nth.unwrap_or_default())
}

fn dummy(topology: &Topology) -> String {
    let mut lines = format!("link add {DUMMY} type dummy\n");
    for service in &topology.services {
        let address = cluster_ip(topology, service);
        let address = address::of_device(address, address::bits(address));
        let _ = writeln!(lines, "addr add {address} dev {DUMMY}");
    }
    lines
}

fn sets(topology: &Topology) -> String {
    let mut lines = String::new();
    let family = match topology.family {
        Family::Ipv4 => "inet",
        Family::Ipv6 => "inet6",
    };
    for (name, kind) in SETS {
        let options = match kind {
            "bitmap:port" => "range 0-65535".to_owned(),
            _ => format!("family {family} hashsize 1024 maxelem 65536"),
        };
        let _ = writeln!(lines, "create {name} {kind} {options}");
    }
    for service in &topology.services {
        for server in &service.real_servers {
            if let Some(Pod { address, port, .. }) = topology.pod(&server.pod) {
                let _ = writeln!(lines, "add -exist KUBE-LOOP-BACK {address},tcp:{port},{address}");
            }
        }
        let (ip, port) = (cluster_ip(topology, service), service.node_port);
        let _ = writeln!(lines, "add KUBE-CLUSTER-IP {ip},tcp:{CLUSTER_PORT}");
        let _ = writeln!(lines, "add KUBE-IPVS-IPS {ip}");
        let _ = writeln!(lines, "add KUBE-NODE-PORT-TCP {port}");
        if !service.masquerade {
            let _ = writeln!(lines, "add KUBE-NODE-PORT-LOCAL-TCP {port}");
        }
    }
    set_names(&lines, topology.family)
}

/// With IPv6 kube-proxy gives its sets names of their own, for sets of both families can be there: `KUBE-6-`, cut to the
/// 31 letters that a set's name can have (`pkg/proxy/ipvs/ipset.go`). Chains keep theirs.
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

fn rules(topology: &Topology) -> String {
    let mut rules = NAT_CHAINS.to_owned();
    let services = &topology.services;
    if services.iter().any(|service| !service.real_servers.is_empty()) {
        rules += LOOP_BACK;
    }
    if services.iter().any(|service| !service.masquerade) {
        rules += NODE_PORT_LOCAL;
    }
    rules += NODE_PORT;
    let _ = writeln!(
        rules,
        "-A KUBE-SERVICES -m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" \
         -m set --match-set KUBE-CLUSTER-IP dst,dst ! -s {} -j KUBE-MARK-MASQ",
        address::pods(topology.family)
    );
    rules += NAT_END;
    rules += FILTER;
    match topology.family {
        Family::Ipv4 => rules,
        Family::Ipv6 => rules_of_ipv6(&rules),
    }
}

/// The names of sets stand behind `--match-set`; a chain may have the same name.
fn rules_of_ipv6(rules: &str) -> String {
    let mut parts = rules.split("--match-set ");
    let mut out = parts.next().unwrap_or_default().replace("127.0.0.0/8", "::1/128");
    for part in parts {
        let (set, rest) = part.split_once(' ').unwrap_or((part, ""));
        let _ = write!(
            out,
            "--match-set {} {rest}",
            set_names(set, Family::Ipv6).trim_end()
        );
    }
    out
}

fn virtual_servers(topology: &Topology) -> String {
    let mut lines = String::new();
    for service in &topology.services {
        for address in addresses(topology, service) {
            let _ = writeln!(lines, "-A -t {address} -s {}", service.scheduler.name());
            for RealServer { pod, weight } in &service.real_servers {
                if let Some(pod) = topology.pod(pod) {
                    let _ = writeln!(lines, "-a -t {address} -r {} -m -w {weight}", endpoint(pod));
                }
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Behaviour, Overlay, Scheduler};

    fn topology(masquerade: bool) -> Topology {
        let service = |name: &str, node_port| Service {
            name: name.to_owned(),
            node_port,
            scheduler: Scheduler::Rr,
            masquerade,
            real_servers: vec![RealServer {
                pod: "pod-1".to_owned(),
                weight: 1,
            }],
        };
        Topology {
            clients: Vec::new(),
            nodes: Vec::new(),
            overlay: Overlay::None,
            pods: vec![Pod {
                name: "pod-1".to_owned(),
                address: [10, 244, 1, 2].into(),
                node: None,
                port: 8080,
                behaviour: Behaviour::Fin,
            }],
            services: vec![service("web", 30080), service("api", 30081)],
            nft: None,
            family: Family::Ipv4,
        }
    }

    #[test]
    fn a_service_has_two_virtual_servers() {
        assert_eq!(
            virtual_servers(&topology(true)).lines().collect::<Vec<_>>(),
            [
                "-A -t 10.0.0.1:30080 -s rr",
                "-a -t 10.0.0.1:30080 -r 10.244.1.2:8080 -m -w 1",
                "-A -t 10.96.0.10:80 -s rr",
                "-a -t 10.96.0.10:80 -r 10.244.1.2:8080 -m -w 1",
                "-A -t 10.0.0.1:30081 -s rr",
                "-a -t 10.0.0.1:30081 -r 10.244.1.2:8080 -m -w 1",
                "-A -t 10.96.0.11:80 -s rr",
                "-a -t 10.96.0.11:80 -r 10.244.1.2:8080 -m -w 1",
            ]
        );
    }

    #[test]
    fn without_masquerade_the_port_is_local_too_and_its_rule_comes_first() {
        let (cluster, local) = (topology(true), topology(false));
        assert!(!sets(&cluster).contains("add KUBE-NODE-PORT-LOCAL-TCP"));
        assert!(sets(&local).contains("add KUBE-NODE-PORT-LOCAL-TCP 30080\n"));
        assert!(sets(&local).contains("add KUBE-NODE-PORT-TCP 30080\n"));
        assert!(!rules(&cluster).contains("KUBE-NODE-PORT-LOCAL-TCP"));
        let rules = rules(&local);
        let return_first = rules.find("KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN").unwrap();
        let mark_then = rules.find("KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ").unwrap();
        assert!(return_first < mark_then);
    }

    #[test]
    fn every_set_that_a_rule_asks_for_is_made() {
        for rule in rules(&topology(false)).lines() {
            if let Some((_, set)) = rule.split_once("--match-set ") {
                let set = set.split(' ').next().unwrap();
                assert!(SETS.iter().any(|(name, _)| *name == set), "{rule}");
            }
        }
    }
}
