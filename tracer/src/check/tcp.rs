//! Hazards of TCP, on the node and in the network namespaces of pods.

use super::hazard::{Hazard, Severity, State, Tested, count, list, read_once, setting};
use crate::facts::node_state::{Listener, NodeState};

const RECYCLE: &str = "net.ipv4.tcp_tw_recycle";
const COOKIES: &str = "net.ipv4.tcp_syncookies";
const ABORT: &str = "net.ipv4.tcp_abort_on_overflow";
const SOMAXCONN: &str = "net.core.somaxconn";

pub(super) const HAZARDS: [Hazard; 4] = [
    Hazard {
        id: "tcp-tw-recycle",
        title: "tcp_tw_recycle drops clients behind one NAT address",
        severity: Severity::Breaks,
        detect: "net.ipv4.tcp_tw_recycle is 1. Kernels since 4.12 do not have it.",
        why: "The kernel compares the timestamps of all clients behind one address, and drops SYNs of those whose clock is behind.",
        reference: "kubernetes/kubernetes#33945",
        cause: Some("tcp.timestamp-rejected"),
        tested: Tested::Fixture,
        judge: recycle,
    },
    Hazard {
        id: "tcp-accept-queue",
        title: "A listener drops SYNs, mostly because its accept queue is full",
        severity: Severity::Breaks,
        detect: "The counters ListenOverflows or ListenDrops move in a network namespace, or a listener (/proc/net/tcp) has more connections waiting than net.core.somaxconn.",
        why: "The listener's process does not accept connections as fast as they come: SYNs and final ACKs are dropped.",
        reference: "https://blog.cloudflare.com/syn-packet-handling-in-the-wild/",
        cause: Some("tcp.accept-queue-full"),
        tested: Tested::Lab("check-accept-queue"),
        judge: accept_queue,
    },
    Hazard {
        id: "tcp-syncookies",
        title: "No SYN cookies when the SYN queue is full",
        severity: Severity::Warns,
        detect: "net.ipv4.tcp_syncookies is 0, or the counter TCPReqQFullDrop moves in a network namespace.",
        why: "When the queue of half-open connections is full, SYNs are dropped instead of being answered with a cookie.",
        reference: "https://docs.kernel.org/networking/ip-sysctl.html",
        cause: Some("tcp.syn-queue-full"),
        tested: Tested::Lab("check-settings"),
        judge: cookies,
    },
    Hazard {
        id: "tcp-abort",
        title: "A full accept queue resets clients",
        severity: Severity::Informs,
        detect: "net.ipv4.tcp_abort_on_overflow is 1.",
        why: "A client whose final ACK finds the queue full gets a RST, where it would otherwise get through a little later.",
        reference: "https://docs.kernel.org/networking/ip-sysctl.html",
        cause: None,
        tested: Tested::Lab("check-settings"),
        judge: abort,
    },
];

fn recycle(node: &NodeState) -> State {
    match node.number(RECYCLE) {
        None => State::fine(format!("this kernel has no {RECYCLE}")),
        Some(0) => State::fine(format!("{RECYCLE} is 0")),
        Some(_) => State::armed(
            format!("{RECYCLE} is 1: SYNs of clients that share an address behind NAT are dropped"),
            [setting(node, RECYCLE)],
            format!("sysctl -w {RECYCLE}=0"),
        ),
    }
}

/// How much a counter grew in each network namespace where it did, with a name for the namespace.
fn growth(node: &NodeState, counter: &str) -> Vec<(String, u64)> {
    let own = node
        .counters
        .growth(counter)
        .map(|growth| ("the node".to_owned(), growth));
    let pods = node.pods.iter().filter_map(|pod| {
        let growth = pod.counters.growth(counter)?;
        Some((
            format!("the network namespace of {} (pid {})", pod.process, pod.pid),
            growth,
        ))
    });
    own.into_iter()
        .chain(pods)
        .filter(|(_, growth)| *growth > 0)
        .collect()
}

fn accept_queue(node: &NodeState) -> State {
    let mut found = growth(node, "TcpExt.ListenOverflows");
    let (name, why) = if found.is_empty() {
        found = growth(node, "TcpExt.ListenDrops");
        ("ListenDrops", "this counter does not show why")
    } else {
        ("ListenOverflows", "its accept queue is full")
    };
    let queues = queues(node);
    let full: Vec<String> = queues
        .iter()
        .map(|(place, listener)| {
            format!(
                "{place}: {} {} on port {}",
                count(u64::from(listener.waiting), "connection", "connections"),
                if listener.waiting == 1 { "waits" } else { "wait" },
                listener.address.port()
            )
        })
        .collect();
    if let Some((place, growth)) = found.first() {
        let evidence = found
            .iter()
            .map(|(place, growth)| format!("{place}: {name} +{growth}"));
        return State::hurts(
            format!(
                "a listener in {place} dropped {} within {} s ({name}): {why}",
                count(*growth, "SYN or ACK", "SYNs or ACKs"),
                node.interval_s
            ),
            evidence.chain(full),
            format!(
                "let the process accept faster or listen with a larger backlog; {} limits it",
                setting(node, SOMAXCONN)
            ),
        );
    }
    let limit = node.number(SOMAXCONN);
    let is_full =
        |(_, listener): &&(String, &Listener)| limit.is_some_and(|limit| i64::from(listener.waiting) > limit);
    if queues.iter().any(|queue| is_full(&queue)) {
        return State::armed(
            format!("an accept queue is full: {}", list(&full)),
            full,
            format!(
                "let the process accept faster; {} limits the queue",
                setting(node, SOMAXCONN)
            ),
        );
    }
    if let Some(state) = read_once(node) {
        return state;
    }
    State::fine(format!(
        "no listener of the node and {} dropped a SYN within {} s",
        count(
            node.pods.len() as u64,
            "other network namespace",
            "other network namespaces"
        ),
        node.interval_s
    ))
}

/// The listeners with waiting connections, the longest queue first.
fn queues(node: &NodeState) -> Vec<(String, &Listener)> {
    let own = node
        .listeners
        .iter()
        .map(|listener| ("the node".to_owned(), listener));
    let pods = node.pods.iter().flat_map(|pod| {
        let place = format!("{} (pid {})", pod.process, pod.pid);
        pod.listeners
            .iter()
            .map(move |listener| (place.clone(), listener))
    });
    let mut all: Vec<_> = own
        .chain(pods)
        .filter(|(_, listener)| listener.waiting > 0)
        .collect();
    all.sort_by_key(|(_, listener)| std::cmp::Reverse(listener.waiting));
    all
}

fn cookies(node: &NodeState) -> State {
    let found = growth(node, "TcpExt.TCPReqQFullDrop");
    if let Some((place, growth)) = found.first() {
        return State::hurts(
            format!(
                "{place} dropped {} within {} s: the SYN queue is full and SYN cookies are off",
                count(*growth, "SYN", "SYNs"),
                node.interval_s
            ),
            found
                .iter()
                .map(|(place, growth)| format!("{place}: TCPReqQFullDrop +{growth}")),
            format!("sysctl -w {COOKIES}=1 in that network namespace"),
        );
    }
    match node.number(COOKIES) {
        None => State::unknown(format!("{COOKIES} is not readable")),
        Some(0) => State::armed(
            format!("{COOKIES} is 0: when a SYN queue is full, SYNs are dropped"),
            [setting(node, COOKIES)],
            format!("sysctl -w {COOKIES}=1"),
        ),
        Some(value) => State::fine(format!("{COOKIES} is {value}")),
    }
}

fn abort(node: &NodeState) -> State {
    match node.number(ABORT) {
        None => State::unknown(format!("{ABORT} is not readable")),
        Some(0) => State::fine(format!("{ABORT} is 0")),
        Some(_) => State::armed(
            format!("{ABORT} is 1: when an accept queue is full, clients are reset instead of delayed"),
            [setting(node, ABORT)],
            format!("sysctl -w {ABORT}=0"),
        ),
    }
}
