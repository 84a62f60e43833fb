//! Hazards of connection tracking.

use super::hazard::{Hazard, Severity, State, Tested, count, read_once, setting};
use crate::facts::node_state::NodeState;

const MAX: &str = "net.netfilter.nf_conntrack_max";
const COUNT: &str = "net.netfilter.nf_conntrack_count";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
const CLOSE_WAIT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";
const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";

pub(super) const HAZARDS: [Hazard; 5] = [
    Hazard {
        id: "ct-full",
        title: "conntrack drops packets, or its table is nearly full",
        severity: Severity::Breaks,
        detect: "nf_conntrack_count is above 80 % of nf_conntrack_max, or the counters drop and early_drop in /proc/net/stat/nf_conntrack move.",
        why: "New connections get no entry, and their SYNs are dropped.",
        reference: "kubernetes/kubernetes#18604",
        cause: Some("conntrack.table-full"),
        tested: Tested::Lab("check-settings"),
        judge: full,
    },
    Hazard {
        id: "ct-hash",
        title: "The conntrack table has long chains",
        severity: Severity::Warns,
        detect: "nf_conntrack_max is more than 8 times nf_conntrack_buckets, or the counter chaintoolong moves.",
        why: "Look-ups are slow, and since 5.15 an entry whose chain is too long is not inserted.",
        reference: "https://docs.kernel.org/networking/nf_conntrack-sysctl.html",
        cause: Some("conntrack.insert-failed"),
        tested: Tested::Lab("check-settings"),
        judge: hash,
    },
    Hazard {
        id: "ct-insert",
        title: "Two connections compete for one translated tuple",
        severity: Severity::Warns,
        detect: "The counter insert_failed in /proc/net/stat/nf_conntrack moves.",
        why: "Masquerading gave two connections the same source port; the SYN of one is dropped and costs its client 1 s.",
        reference: "kubernetes/kubernetes#56903",
        cause: Some("conntrack.insert-failed"),
        tested: Tested::Fixture,
        judge: insert,
    },
    Hazard {
        id: "ct-close-wait",
        title: "conntrack forgets half-closed connections early",
        severity: Severity::Informs,
        detect: "nf_conntrack_tcp_timeout_close_wait is shorter than an hour, where kube-proxy is found.",
        why: "A connection that one end has closed and the other still uses is forgotten after this time; its packets are then dropped or reset.",
        reference: "kubernetes/kubernetes#32551",
        cause: None,
        tested: Tested::Lab("check-settings"),
        judge: close_wait,
    },
    Hazard {
        id: "ct-invalid",
        title: "Packets that conntrack finds INVALID",
        severity: Severity::Informs,
        detect: "The counter invalid in /proc/net/stat/nf_conntrack moves, and nf_conntrack_tcp_be_liberal is 0.",
        why: "INVALID packets are not translated: they reach the client with the pod's address, and the client resets the connection. Rules that drop INVALID turn that into a stall.",
        reference: "kubernetes/kubernetes#74839",
        cause: Some("conntrack.invalid"),
        tested: Tested::Fixture,
        judge: invalid,
    },
];

fn missing(node: &NodeState) -> Option<State> {
    if node.number(MAX).is_some() {
        return None;
    }
    Some(State::fine("nf_conntrack is not loaded"))
}

fn full(node: &NodeState) -> State {
    if let Some(state) = missing(node) {
        return state;
    }
    let (Some(max), Some(entries)) = (node.number(MAX), node.number(COUNT)) else {
        return State::unknown(format!("{COUNT} is not readable"));
    };
    let evidence = [setting(node, COUNT), setting(node, MAX)];
    let advice = format!("sysctl -w {MAX}={}", max.saturating_mul(2));
    let grown = ["drop", "early_drop"].map(|name| {
        let growth = node.counters.growth(&format!("conntrack.{name}")).unwrap_or(0);
        (name, growth)
    });
    let grown_by: u64 = grown.iter().map(|(_, growth)| growth).sum();
    if grown_by > 0 {
        let counters = grown.map(|(name, growth)| format!("conntrack {name} +{growth}"));
        let evidence = evidence.into_iter().chain(counters);
        // Entries are dropped early only in a full table; packets are dropped for other reasons too.
        let is_full = grown[1].1 > 0 || entries.saturating_mul(10) >= max.saturating_mul(9);
        let (why, advice) = if is_full {
            (format!("the table is full ({entries}/{max})"), advice)
        } else {
            let why = format!("the table is not full ({entries}/{max})");
            (why, "see which counter moves with it: conntrack -S".to_owned())
        };
        return State::hurts(
            format!(
                "conntrack dropped {} within {} s: {why}",
                count(grown_by, "packet or entry", "packets or entries"),
                node.interval_s
            ),
            evidence,
            advice,
        );
    }
    if entries.saturating_mul(5) > max.saturating_mul(4) {
        return State::armed(
            format!(
                "the conntrack table is nearly full ({entries}/{max}): at the limit, new connections are dropped"
            ),
            evidence,
            advice,
        );
    }
    read_once(node).unwrap_or_else(|| State::fine(format!("{entries} of {max} entries")))
}

fn hash(node: &NodeState) -> State {
    if let Some(state) = missing(node) {
        return state;
    }
    let (Some(max), Some(buckets)) = (node.number(MAX), node.number(BUCKETS)) else {
        return State::unknown(format!("{BUCKETS} is not readable"));
    };
    let evidence = [setting(node, MAX), setting(node, BUCKETS)];
    let advice = format!("echo {} > /sys/module/nf_conntrack/parameters/hashsize", max / 4);
    let refused = node.counters.growth("conntrack.chaintoolong").unwrap_or(0);
    if refused > 0 {
        return State::hurts(
            format!(
                "conntrack refused {} within {} s because a chain is too long",
                count(refused, "connection", "connections"),
                node.interval_s
            ),
            evidence,
            advice,
        );
    }
    if buckets > 0 && max / buckets > 8 {
        return State::armed(
            format!(
                "{max} conntrack entries share {buckets} buckets: when the table fills up, look-ups are slow and entries are refused"
            ),
            evidence,
            advice,
        );
    }
    read_once(node).unwrap_or_else(|| State::fine(format!("{max} entries in {buckets} buckets")))
}

fn insert(node: &NodeState) -> State {
    if let Some(state) = missing(node).or_else(|| read_once(node)) {
        return state;
    }
    match node.counters.growth("conntrack.insert_failed") {
        None => State::unknown("/proc/net/stat/nf_conntrack is missing or has no insert_failed"),
        Some(0) => State::fine(format!("insert_failed did not move within {} s", node.interval_s)),
        Some(failed) => State::hurts(
            format!(
                "conntrack could not insert {} within {} s: their first packets were dropped",
                count(failed, "connection", "connections"),
                node.interval_s
            ),
            [format!("conntrack insert_failed +{failed}")],
            "let kube-proxy and the CNI masquerade with --random-fully (iptables 1.6.2 and later), and masquerade fewer connections: externalTrafficPolicy: Local needs none",
        ),
    }
}

fn close_wait(node: &NodeState) -> State {
    if let Some(state) = missing(node) {
        return state;
    }
    if !super::node_port::has_kube_proxy(node) {
        return State::fine("no kube-proxy is found");
    }
    match node.number(CLOSE_WAIT) {
        None => State::unknown(format!("{CLOSE_WAIT} is not readable")),
        Some(seconds) if seconds >= 3600 => State::fine(format!("{CLOSE_WAIT} is {seconds}")),
        Some(seconds) => State::armed(
            format!("{CLOSE_WAIT} is {seconds}: a half-closed connection that is idle for longer breaks"),
            [setting(node, CLOSE_WAIT)],
            format!(
                "sysctl -w {CLOSE_WAIT}=3600; kube-proxy sets it with --conntrack-tcp-timeout-close-wait"
            ),
        ),
    }
}

fn invalid(node: &NodeState) -> State {
    if let Some(state) = missing(node) {
        return state;
    }
    if node.number(LIBERAL) == Some(1) {
        return State::fine(format!("{LIBERAL} is 1"));
    }
    if let Some(state) = read_once(node) {
        return state;
    }
    match node.counters.growth("conntrack.invalid") {
        None => State::unknown("/proc/net/stat/nf_conntrack is missing"),
        Some(0) => State::fine(format!("no packet was INVALID within {} s", node.interval_s)),
        Some(found) => State::armed(
            format!(
                "conntrack found {} INVALID within {} s: if they belong to NATed connections, those stall or are reset",
                count(found, "packet", "packets"),
                node.interval_s
            ),
            [format!("conntrack invalid +{found}"), setting(node, LIBERAL)],
            format!("sysctl -w {LIBERAL}=1; kube-proxy 1.29 and later: --conntrack-tcp-be-liberal"),
        ),
    }
}
