//! Advice about IPVS.

use super::command::{endpoints, has, route_to, set, set_seen};
use crate::{
    diagnose::{
        case::{Case, Proof},
        cause::Cause,
        evidence::Key,
        ipvs::reply,
    },
    facts::ipvs::Listens,
};

const REUSE_MODE: &str = "net.ipv4.vs.conn_reuse_mode";
const EXPIRE_NODEST: &str = "net.ipv4.vs.expire_nodest_conn";
const EXPIRE_QUIESCENT: &str = "net.ipv4.vs.expire_quiescent_template";
const DROP_PACKET: &str = "net.ipv4.vs.drop_packet";
const LOCAL_RANGE: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

pub(super) fn of(cause: Cause, case: &Case<'_>, proof: &Proof) -> Option<String> {
    Some(match cause {
        Cause::IpvsReuseDropped => reuse(case, proof)?,
        Cause::IpvsNodestExpired => format!(
            "Nothing to change for this connection: the next SYN goes to another real server. This happens while {} drains or after it \
             was removed. Shorten the drain, or keep connections alive so that clients reuse fewer ports.",
            proof.value(Key::OldEntryServer).unwrap_or("the old real server")
        ),
        Cause::IpvsDestUnavailable => expire_nodest(case, proof)?,
        Cause::IpvsReuseStaleBackend => stale(case, proof)?,
        Cause::IpvsAffinityStale => affinity(case, proof)?,
        Cause::IpvsDefenseDrop => defense(case)?,
        Cause::IpvsConnAllocFailed => alloc(proof),
        Cause::IpvsDestOverloaded => {
            let node = case.flow.node();
            format!(
                "Add endpoints, or raise the thresholds with `ipvsadm -e` (-x, -y). `ipvsadm -Ln --thresholds -t {node}` shows them. \
                 kube-proxy sets no thresholds: something else did."
            )
        }
        Cause::IpvsNoService => {
            let node = case.flow.node();
            format!(
                "kube-proxy created no virtual service for {node} (`ipvsadm -Ln -t {node}`): check its log, and whether its \
                 --nodeport-addresses include {}.",
                node.ip()
            )
        }
        Cause::IpvsNoDestination => format!("Check {}.", endpoints(case)),
        Cause::IpvsLoopbackClient => loopback_client(case),
        Cause::IpvsReplyAsRequest => source_port(case)?,
        Cause::IpvsXmitNoRoute => {
            let server = case.flow.backend_of(case.attempt)?;
            format!(
                "The node cannot reach {}: check `{}`, and the network plugin, which should have created the route.",
                server.ip(),
                route_to(server.ip())
            )
        }
        Cause::IpvsXmitTtl => format!(
            "The SYN from {} arrived with a TTL of 1: look for a routing loop before this node, or for a client that sets a \
             small TTL (IP_TTL, traceroute).",
            case.flow.client().ip()
        ),
        Cause::IpvsXmitMtu => {
            let server = case.flow.backend_of(case.attempt)?;
            format!(
                "Check the MTU of the route to {} (`{}`, `ip link`) and what the network plugin subtracts for its tunnel. A SYN is \
                 that large only with data in it (TCP Fast Open).",
                server.ip(),
                route_to(server.ip())
            )
        }
        _ => return None,
    })
}

fn loopback_client(case: &Case<'_>) -> String {
    let node = case.flow.node();
    // Each address of the node has a virtual service with this port.
    let services = case.netns().into_iter().flat_map(|netns| &netns.services);
    let other = services
        .filter_map(|service| match service.listens {
            Listens::Address { address, .. } => Some(address),
            Listens::Mark(_) => None,
        })
        .find(|address| {
            address.port() == node.port()
                && address.is_ipv6() == node.is_ipv6()
                && !address.ip().is_loopback()
        });
    let instead = other.map_or_else(
        || {
            format!(
                "port {} of one of the node's other addresses (`ip -br address`)",
                node.port()
            )
        },
        |address| address.to_string(),
    );
    format!(
        "Connect to {instead} instead of {node}: NodePorts on loopback addresses do not work in IPVS mode. iptables mode supports \
         them for IPv4 (route_localnet); nftables mode does not."
    )
}

/// The default NodePort range of Kubernetes.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The settings that keep the node's processes from using a NodePort as their source port. The kernel applies both settings
/// only to ports that it chooses (`inet_csk_get_port`, `__inet_hash_connect`), not to those that a process binds.
fn source_port(case: &Case<'_>) -> Option<String> {
    let port = reply::opened(case)?.0.port();
    let sysctls = &case.netns()?.sysctls;
    let range = sysctls.get(LOCAL_RANGE)?;
    let reserved = sysctls.get(RESERVED)?;
    let bound = |why: &str| {
        format!(
            "{why}, so the kernel did not choose it: a process binds it. Find the process (`ss -tnp sport = :{port}`) and let it \
             use another source port, or give the service another NodePort."
        )
    };
    let mut ends = range.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
        return None;
    };
    if !(first..=last).contains(&port) {
        return Some(bound(&format!(
            "Source port {port} is not in {LOCAL_RANGE} ({first} to {last})"
        )));
    }
    if is_listed(reserved, port) {
        return Some(bound(&format!("Source port {port} is in {RESERVED}")));
    }
    let own = if NODE_PORTS.contains(&port) {
        format!("{}-{}", NODE_PORTS.start(), NODE_PORTS.end())
    } else {
        port.to_string()
    };
    let all = if reserved.is_empty() {
        own
    } else {
        format!("{reserved},{own}")
    };
    Some(format!(
        "Run `sysctl -w {RESERVED}={all}`, and set the same in /etc/sysctl.d, so that the kernel chooses no NodePort as a source port. \
         Ports that processes bind are not affected."
    ))
}

/// Whether a port is in a list of ports and ranges (`80,30000-32767`).
fn is_listed(list: &str, port: u16) -> bool {
    list.split(',').any(|entry| {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let ends = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
        matches!(ends, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

fn reuse(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let mut out = Vec::new();
    if let Some(mode) = set_seen(case, proof, Key::IpvsReuseMode, REUSE_MODE, "0") {
        let nodest = set_seen(case, proof, Key::IpvsExpireNodest, EXPIRE_NODEST, "1")
            .map_or_else(String::new, |nodest| format!(" together with {nodest}"));
        out.push(format!(
            "Run {mode}{nodest}: IPVS then keeps the old entry instead of dropping the SYN. The price: a reused port stays on its \
             old real server. Some versions of kube-proxy set it at startup: check it after each restart of kube-proxy."
        ));
    }
    if out.is_empty() && !has(case, REUSE_MODE, "0") {
        return None;
    }
    if proof
        .value(Key::OldEntryState)
        .is_some_and(|state| state.starts_with("CLOSE"))
    {
        out.push("The old connection ended with RST: make the backend close with FIN.".to_owned());
    }
    out.push("Keep connections alive, so that clients reuse fewer ports.".to_owned());
    Some(out.join(" "))
}

/// The setting under which IPVS expires entries of removed servers. kube-proxy sets it.
fn expire_nodest(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let server = proof
        .value(Key::OldEntryServer)
        .unwrap_or("the removed real server");
    let wait =
        format!("The port works again when the old entry to {server} times out (`ipvsadm -Lnc` shows when).");
    if let Some(set) = set_seen(case, proof, Key::IpvsExpireNodest, EXPIRE_NODEST, "1") {
        return Some(format!(
            "Run {set}. IPVS then expires such entries: one SYN is dropped, and the next is scheduled. kube-proxy sets it when it \
             starts in IPVS mode: find out what changed it. {wait}"
        ));
    }
    has(case, EXPIRE_NODEST, "1")
        .then(|| format!("expire_nodest_conn is 1 now, so the next SYN expires the entry. {wait}"))
}

fn stale(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let server = proof.value(Key::OldEntryServer).unwrap_or("the old real server");
    if let Some(set) = set_seen(case, proof, Key::IpvsExpireNodest, EXPIRE_NODEST, "1") {
        return Some(format!(
            "Run {set}, so that IPVS sends no new connection to {server} through an old entry. kube-proxy sets it when it starts in \
             IPVS mode: find out what changed it."
        ));
    }
    if !has(case, EXPIRE_NODEST, "1") {
        return None;
    }
    if let Some(set) = set(case, REUSE_MODE, "1") {
        return Some(format!(
            "Run {set}, so that IPVS reschedules a SYN from a reused port instead of sending it to {server}. The price: where conntrack \
             still holds the old connection, the first SYN is dropped (1 s). Some versions of kube-proxy set it at startup."
        ));
    }
    Some(format!(
        "The port works again when the old entry to {server} times out (`ipvsadm -Lnc` shows when). Keep connections alive, so \
         that clients reuse fewer ports."
    ))
}

fn affinity(case: &Case<'_>, proof: &Proof) -> Option<String> {
    let until = "Meanwhile the client is sent there until its template times out, and each connection restarts that timeout \
                 (`ipvsadm -Lnc` lists the template with client port 0).";
    if let Some(set) = set_seen(case, proof, Key::IpvsExpireQuiescent, EXPIRE_QUIESCENT, "1") {
        return Some(format!(
            "Run {set}: a draining real server then loses its templates. kube-proxy sets it when it starts in IPVS mode: find out \
             what changed it. {until}"
        ));
    }
    has(case, EXPIRE_QUIESCENT, "1").then(|| {
        format!(
            "Remove the draining real server from the service once its connections have ended, or use another client address. \
             {until}"
        )
    })
}

fn defense(case: &Case<'_>) -> Option<String> {
    let why = if has(case, DROP_PACKET, "3") {
        "With 3, IPVS always drops one in net.ipv4.vs.am_droprate new connections."
    } else {
        "Better: give the node more memory, because IPVS drops only while fewer pages than net.ipv4.vs.amemthresh are free."
    };
    Some(format!(
        "Turn this defence off with {}; the node can then run out of memory under a SYN flood. {why} kube-proxy does not set it: \
         look in /etc/sysctl.d for the file that does.",
        set(case, DROP_PACKET, "0")?
    ))
}

fn alloc(proof: &Proof) -> String {
    let (entries, limit) = (proof.number(Key::IpvsConnCount), proof.number(Key::IpvsConnMax));
    match (entries, limit) {
        (Some(entries), Some(limit)) if entries >= limit => format!(
            "The table has {entries} entries and the limit is {limit}: raise it (`sysctl -w net.ipv4.vs.conn_max={}`), or find \
             out what fills the table (`ipvsadm -Lnc`).",
            limit.saturating_mul(2).max(65_536)
        ),
        _ => "The node is out of memory: look in the kernel log for ip_vs_conn_new and for page allocation failures.".to_owned(),
    }
}
