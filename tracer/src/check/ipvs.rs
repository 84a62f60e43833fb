//! Hazards of IPVS.

use super::hazard::{Hazard, Severity, State, Tested, count, list, setting};
use crate::facts::{
    ipvs::Listens,
    node_state::{Ipvs, NodeState, ReuseTrial},
};

const REUSE_MODE: &str = "net.ipv4.vs.conn_reuse_mode";
const NODEST: &str = "net.ipv4.vs.expire_nodest_conn";
const QUIESCENT: &str = "net.ipv4.vs.expire_quiescent_template";
const CONNTRACK: &str = "net.ipv4.vs.conntrack";
const KEEPALIVE: &str = "net.ipv4.tcp_keepalive_time";

pub(super) const HAZARDS: [Hazard; 9] = [
    Hazard {
        id: "ipvs-reuse",
        title: "IPVS drops the first SYN of a reused client port",
        severity: Severity::Breaks,
        detect: "net.ipv4.vs.conn_reuse_mode is 1, net.ipv4.vs.conntrack is 1 and there are virtual services. Whether the running code drops is shown by `--try` alone; without the function ip_vs_expire_nodest_conn_flush the code is older than the change that helps.",
        why: "A client that reuses its source port within 2 minutes loses one second for each connection. kube-proxy leaves the setting alone on kernels that call themselves older than 4.1, although that of CentOS 7 has it.",
        reference: "kubernetes/kubernetes#81775",
        cause: Some("ipvs.reuse-dropped"),
        tested: Tested::Lab("check-ipvs-reuse-pre-5.9"),
        judge: reuse,
    },
    Hazard {
        id: "ipvs-nodest",
        title: "IPVS drops SYNs that match the entry of a removed pod",
        severity: Severity::Breaks,
        detect: "net.ipv4.vs.expire_nodest_conn is 0 and there are virtual services.",
        why: "A client that reuses the port of a connection to a removed pod gets no answer until the entry times out, up to 15 minutes.",
        reference: "kubernetes/kubernetes#77903",
        cause: Some("ipvs.dest-unavailable"),
        tested: Tested::Lab("check-settings"),
        judge: nodest,
    },
    Hazard {
        id: "ipvs-template",
        title: "Session affinity keeps clients on a draining pod",
        severity: Severity::Warns,
        detect: "net.ipv4.vs.expire_quiescent_template is 0 and a virtual service has session affinity.",
        why: "A client with affinity stays with its pod after the pod's weight became 0.",
        reference: "https://docs.kernel.org/networking/ipvs-sysctl.html",
        cause: Some("ipvs.affinity-stale"),
        tested: Tested::Lab("check-settings"),
        judge: template,
    },
    Hazard {
        id: "ipvs-no-conntrack",
        title: "IPVS bypasses conntrack, so replies are not masqueraded",
        severity: Severity::Breaks,
        detect: "net.ipv4.vs.conntrack is 0 while kube-proxy's chains are in the rules.",
        why: "Without a conntrack entry the masquerade rule does not apply: the pod answers the client directly, and the client gets a reply from an address that it does not know.",
        reference: "kubernetes/kubernetes#53393",
        cause: Some("return.bypassed"),
        tested: Tested::Lab("check-settings"),
        judge: no_conntrack,
    },
    Hazard {
        id: "ipvs-empty",
        title: "A virtual service has no usable real server",
        severity: Severity::Breaks,
        detect: "A virtual service without a real server, or only with real servers of weight 0.",
        why: "Every SYN to it is refused.",
        reference: "kubernetes/kubernetes#75262",
        cause: Some("ipvs.no-destination"),
        tested: Tested::Lab("check-settings"),
        judge: empty,
    },
    Hazard {
        id: "ipvs-defense",
        title: "IPVS drops SYNs when memory is short",
        severity: Severity::Warns,
        detect: "net.ipv4.vs.drop_packet, drop_entry or secure_tcp is not 0.",
        why: "The overload protection of IPVS drops SYNs or expires connections at random. With 3 it always does, with 1 when memory runs low, and then the value becomes 2.",
        reference: "https://docs.kernel.org/networking/ipvs-sysctl.html",
        cause: Some("ipvs.defense-drop"),
        tested: Tested::Lab("check-settings"),
        judge: defense,
    },
    Hazard {
        id: "ipvs-idle",
        title: "IPVS forgets idle connections before TCP keepalive refreshes them",
        severity: Severity::Warns,
        detect: "The timeout of established connections (generic netlink, IPVS_CMD_GET_CONFIG) is shorter than net.ipv4.tcp_keepalive_time.",
        why: "A connection without data is forgotten after the timeout, 15 minutes by default. The next packet of either end is dropped or reset.",
        reference: "kubernetes/kubernetes#71358",
        cause: None,
        tested: Tested::Lab("check-settings"),
        judge: idle,
    },
    Hazard {
        id: "ipvs-estimator",
        title: "The rate estimation of IPVS delays packets",
        severity: Severity::Warns,
        detect: "More than 30000 services times CPUs, estimation is on or cannot be turned off, and the kernel estimates in a timer (there is no ip_vs_est_kthread_start).",
        why: "A timer walks the counters of all services on all CPUs every two seconds, and packets wait for it.",
        reference: "https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/disable-the-ipvs-estimation-feature",
        cause: None,
        tested: Tested::Fixture,
        judge: estimator,
    },
    Hazard {
        id: "ipvs-hash",
        title: "The connection table of IPVS has long chains",
        severity: Severity::Informs,
        detect: "/proc/net/ip_vs: the connections of all real servers are more than 8 times the size of the table.",
        why: "Each packet walks a chain of entries.",
        reference: "https://docs.kernel.org/networking/ipvs-sysctl.html",
        cause: None,
        tested: Tested::Fixture,
        judge: hash,
    },
];

/// The virtual services, or the state of a node that has none.
pub(super) fn in_use(node: &NodeState) -> Result<&Ipvs, State> {
    match (node.ipvs_in_use(), node.ipvs.failure()) {
        (Some(ipvs), _) => Ok(ipvs),
        (None, Some(why)) => Err(State::unknown(format!("cannot read the virtual services: {why}"))),
        (None, None) => Err(State::fine("IPVS has no virtual service here")),
    }
}

/// The virtual services and a setting, or the state of a node without either.
fn with_setting(node: &NodeState, name: &str) -> Result<(i64, u64), State> {
    let ipvs = in_use(node)?;
    let value = node
        .number(name)
        .ok_or_else(|| State::fine(format!("this kernel has no {name}")))?;
    Ok((value, ipvs.services.len() as u64))
}

fn reuse(node: &NodeState) -> State {
    let (mode, services) = match with_setting(node, REUSE_MODE) {
        Ok(found) => found,
        Err(state) => return state,
    };
    if mode == 0 {
        return State::fine(format!("{REUSE_MODE} is {mode}"));
    }
    if node.number(CONNTRACK) != Some(1) {
        return State::fine(format!("{CONNTRACK} is not 1: IPVS reschedules without a drop"));
    }
    let trial = node.reuse_trial.get().and_then(ReuseTrial::drops);
    let newer = "ip_vs_expire_nodest_conn_flush";
    let has_newer = node.functions.get().map(|found| found.contains(newer));
    let mut evidence = vec![
        setting(node, REUSE_MODE),
        setting(node, CONNTRACK),
        count(services, "virtual service", "virtual services"),
    ];
    let condition = match (trial, has_newer) {
        (Some(false), _) => {
            return State::fine(format!(
                "{REUSE_MODE} is {mode}, but this kernel's IPVS dropped no SYN of a reused port in the trial"
            ));
        }
        (Some(true), _) => {
            evidence.push("in the trial, the first SYN of the reused port was dropped".to_owned());
            "IPVS drops the first SYN of every client port that is reused within 2 minutes, and each costs 1 s"
        }
        (None, Some(true)) => {
            if let Some(why) = node.reuse_trial.failure() {
                return State::unknown(format!("{REUSE_MODE} is {mode}, and the trial failed: {why}"));
            }
            return State::unknown(format!(
                "{REUSE_MODE} is {mode}; only a trial can show whether this kernel's IPVS drops SYNs of reused ports: run `tracer check --try`"
            ));
        }
        (None, _) => {
            evidence.push(format!("no function {newer} in /proc/kallsyms"));
            "unless this kernel has the fix of 5.9, every client port that is reused within 2 minutes costs 1 s; `tracer check --try` shows whether it has"
        }
    };
    let mut commands = format!("sysctl -w {REUSE_MODE}=0");
    if node.number(NODEST) == Some(0) {
        commands = format!("{commands} {NODEST}=1");
    }
    State::armed(
        format!("{REUSE_MODE} is {mode}: {condition}"),
        evidence,
        format!("{commands}; no kernel upgrade is needed. Keep it in /etc/sysctl.d"),
    )
}

fn nodest(node: &NodeState) -> State {
    match with_setting(node, NODEST) {
        Err(state) => state,
        Ok((0, services)) => State::armed(
            format!(
                "{NODEST} is 0: clients that reuse the port of a connection to a removed pod get no answer until the entry times out"
            ),
            [
                setting(node, NODEST),
                count(services, "virtual service", "virtual services"),
            ],
            format!("sysctl -w {NODEST}=1"),
        ),
        Ok((value, _)) => State::fine(format!("{NODEST} is {value}")),
    }
}

fn template(node: &NodeState) -> State {
    let value = match with_setting(node, QUIESCENT) {
        Ok((value, _)) => value,
        Err(state) => return state,
    };
    if value != 0 {
        return State::fine(format!("{QUIESCENT} is {value}"));
    }
    let services = node.ipvs_in_use().map(|ipvs| ipvs.services.as_slice());
    let persistent = services
        .unwrap_or_default()
        .iter()
        .filter(|service| service.persistent.is_some())
        .count() as u64;
    if persistent == 0 {
        return State::fine("no virtual service has session affinity");
    }
    State::armed(
        format!("{QUIESCENT} is 0: clients with session affinity stay with a pod that is draining"),
        [
            setting(node, QUIESCENT),
            count(
                persistent,
                "virtual service with session affinity",
                "virtual services with session affinity",
            ),
        ],
        format!("sysctl -w {QUIESCENT}=1"),
    )
}

fn no_conntrack(node: &NodeState) -> State {
    let value = match with_setting(node, CONNTRACK) {
        Ok((value, _)) => value,
        Err(state) => return state,
    };
    if value != 0 {
        return State::fine(format!("{CONNTRACK} is {value}"));
    }
    let summaries = [&node.legacy_rules, &node.nft_rules];
    let chains: u32 = summaries
        .iter()
        .filter_map(|rules| rules.get())
        .map(|rules| rules.kube_chains)
        .sum();
    if chains == 0 {
        return match summaries.iter().find_map(|rules| rules.failure()) {
            Some(why) => State::unknown(format!("{CONNTRACK} is 0, and the rules are unknown: {why}")),
            None => State::fine("kube-proxy has no rules here that masquerade"),
        };
    }
    State::armed(
        format!(
            "{CONNTRACK} is 0: connections through IPVS are not masqueraded, and pods answer clients directly"
        ),
        [
            setting(node, CONNTRACK),
            count(u64::from(chains), "KUBE-* chain", "KUBE-* chains"),
        ],
        format!("sysctl -w {CONNTRACK}=1, then restart kube-proxy"),
    )
}

fn empty(node: &NodeState) -> State {
    let ipvs = match in_use(node) {
        Ok(ipvs) => ipvs,
        Err(state) => return state,
    };
    let is_empty =
        |service: &&crate::facts::ipvs::Service| service.real_servers.iter().all(|server| server.weight == 0);
    let name = |listens: &Listens| match listens {
        Listens::Address { address, .. } => address.to_string(),
        Listens::Mark(mark) => format!("firewall mark {mark}"),
    };
    let empty: Vec<String> = ipvs
        .services
        .iter()
        .filter(is_empty)
        .map(|service| name(&service.listens))
        .collect();
    if empty.is_empty() {
        return State::fine("every virtual service has a usable real server");
    }
    State::armed(
        format!(
            "{} no usable real server, every SYN to it is refused: {}",
            match empty.len() {
                1 => "1 virtual service has".to_owned(),
                several => format!("{several} virtual services have"),
            },
            list(&empty)
        ),
        empty.clone(),
        "check the endpoints of these services: kubectl get endpointslices -A; with externalTrafficPolicy: Local, this node has none",
    )
}

fn defense(node: &NodeState) -> State {
    if let Err(state) = in_use(node) {
        return state;
    }
    let names = ["drop_packet", "drop_entry", "secure_tcp"].map(|name| format!("net.ipv4.vs.{name}"));
    let on: Vec<&String> = names
        .iter()
        .filter(|name| node.number(name).is_some_and(|value| value != 0))
        .collect();
    if on.is_empty() {
        return State::fine("the overload protection is off");
    }
    let active = on
        .iter()
        .any(|name| node.number(name).is_some_and(|value| value >= 2));
    let settings: Vec<String> = on.iter().map(|name| setting(node, name)).collect();
    let commands: Vec<String> = on.iter().map(|name| format!("{name}=0")).collect();
    let advice = format!("sysctl -w {}", commands.join(" "));
    let summary = format!("IPVS protects itself ({})", settings.join(", "));
    if active {
        State::hurts(
            format!("{summary}: it drops SYNs or expires connections now"),
            settings,
            advice,
        )
    } else {
        State::armed(
            format!("{summary}: when memory is short it drops SYNs or expires connections"),
            settings,
            advice,
        )
    }
}

fn idle(node: &NodeState) -> State {
    let ipvs = match in_use(node) {
        Ok(ipvs) => ipvs,
        Err(state) => return state,
    };
    let Some(&timeout) = ipvs.tcp_timeout_s.get() else {
        let why = ipvs.tcp_timeout_s.failure().unwrap_or("not reported");
        return State::unknown(format!("the TCP timeout of IPVS is unknown: {why}"));
    };
    let Some(keepalive) = node.number(KEEPALIVE) else {
        return State::unknown(format!("{KEEPALIVE} is not readable"));
    };
    if i64::from(timeout) > keepalive {
        return State::fine(format!(
            "IPVS keeps idle connections for {timeout} s, keepalive starts after {keepalive} s"
        ));
    }
    State::armed(
        format!(
            "IPVS forgets a connection that is idle for {timeout} s, and TCP keepalive starts after {keepalive} s: idle connections break"
        ),
        [
            format!("TCP timeout of IPVS = {timeout} s"),
            setting(node, KEEPALIVE),
        ],
        format!(
            "set --ipvs-tcp-timeout of kube-proxy above {keepalive}s, or let clients and pods send keepalives every {} s",
            timeout.saturating_mul(2) / 3
        ),
    )
}

fn estimator(node: &NodeState) -> State {
    const MANY: u64 = 30_000;
    let ipvs = match in_use(node) {
        Ok(ipvs) => ipvs,
        Err(state) => return state,
    };
    let work = ipvs.services.len() as u64 * u64::from(node.cpus);
    if work < MANY {
        return State::fine(format!(
            "{} on {}",
            count(ipvs.services.len() as u64, "virtual service", "virtual services"),
            count(u64::from(node.cpus), "CPU", "CPUs")
        ));
    }
    let name = "net.ipv4.vs.run_estimation";
    let functions = node.functions.get();
    match (functions, node.number(name)) {
        (_, Some(0)) => State::fine(format!("{name} is 0")),
        (None, _) => State::unknown("/proc/kallsyms is not readable"),
        (Some(found), _) if found.contains("ip_vs_est_kthread_start") => {
            State::fine("this kernel estimates rates in threads of its own")
        }
        (Some(_), setting) => State::armed(
            format!(
                "the estimation of IPVS walks the counters of {} services on {} CPUs in a timer: packets can wait for it",
                ipvs.services.len(),
                node.cpus
            ),
            [format!("services x CPUs = {work}")],
            match setting {
                Some(_) => format!("sysctl -w {name}=0"),
                None => {
                    "limit the addresses that get services: --nodeport-addresses of kube-proxy".to_owned()
                }
            },
        ),
    }
}

fn hash(node: &NodeState) -> State {
    let ipvs = match in_use(node) {
        Ok(ipvs) => ipvs,
        Err(state) => return state,
    };
    let Some(buckets) = ipvs.buckets.filter(|&buckets| buckets != 0) else {
        return State::unknown("the size of the connection table is not in /proc/net/ip_vs");
    };
    let connections = ipvs.connections();
    if connections / buckets <= 8 {
        return State::fine(format!("{connections} connections in {buckets} buckets"));
    }
    State::armed(
        format!(
            "{connections} connections share {buckets} buckets of the connection table: each packet walks a long chain"
        ),
        [format!("size of the connection table = {buckets}")],
        "load ip_vs with a larger conn_tab_bits: options ip_vs conn_tab_bits=20 in /etc/modprobe.d, then reboot",
    )
}
