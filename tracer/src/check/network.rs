//! Hazards of routing and devices.

use std::collections::BTreeSet;

use super::{
    hazard::{Hazard, Severity, State, Tested, count, list, read_once, setting},
    node_port::has_kube_proxy,
};
use crate::facts::node_state::{Device, NodeState};

const FORWARD: &str = "net.ipv4.ip_forward";
const BRIDGE: &str = "net.bridge.bridge-nf-call-iptables";

pub(super) const HAZARDS: [Hazard; 8] = [
    Hazard {
        id: "fwd-off",
        title: "The node does not forward",
        severity: Severity::Breaks,
        detect: "net.ipv4.ip_forward is 0, or net.ipv4.conf.DEVICE.forwarding is 0 for a device, where kube-proxy is found.",
        why: "SYNs to a pod on another node, or replies from it, are dropped.",
        reference: "cilium/pwru#416",
        cause: Some("route.forwarding-off"),
        tested: Tested::Lab("check-devices"),
        judge: forwarding,
    },
    Hazard {
        id: "rp-filter",
        title: "Strict reverse path filter on an asymmetric path",
        severity: Severity::Warns,
        detect: "The counter IPReversePathFilter moves; or the greater of net.ipv4.conf.all.rp_filter and the device's own is 1 on a tunnel, or on several devices with a gateway.",
        why: "The kernel drops a packet whose source it would not reach through the device on which the packet came in.",
        reference: "cilium/cilium#13130",
        cause: Some("route.rp-filter"),
        tested: Tested::Lab("check-devices"),
        judge: rp_filter,
    },
    Hazard {
        id: "bridge-nf",
        title: "Bridged packets bypass the rules",
        severity: Severity::Breaks,
        detect: "A bridge other than docker0 and virbr* while net.bridge.bridge-nf-call-iptables is 0 or missing, where kube-proxy is found.",
        why: "A reply from a pod to a pod on the same bridge is not translated back: the client resets the connection.",
        reference: "alibaba/kubeskoop",
        cause: Some("return.not-translated"),
        tested: Tested::Lab("check-devices"),
        judge: bridge,
    },
    Hazard {
        id: "neigh-full",
        title: "The neighbour table is full",
        severity: Severity::Warns,
        detect: "The entries in /proc/net/stat/arp_cache are more than 80 % of net.ipv4.neigh.default.gc_thresh3, or table_fulls moves; one table serves all network namespaces.",
        why: "Addresses that are not in the table cannot be resolved, and packets to them are dropped.",
        reference: "kubernetes/kops#4533",
        cause: Some("neigh.unresolved"),
        tested: Tested::Lab("check-devices"),
        judge: neighbours,
    },
    Hazard {
        id: "mtu-tunnel",
        title: "A tunnel's MTU does not fit into the network's",
        severity: Severity::Warns,
        detect: "The MTU of an IPIP, VXLAN or WireGuard device is greater than the smallest MTU of a physical device less 20, 50 or 60 bytes.",
        why: "The handshake passes, and large packets vanish: data hangs.",
        reference: "https://docs.tigera.io/calico/latest/networking/configuring/mtu",
        cause: None,
        tested: Tested::Fixture,
        judge: mtu,
    },
    Hazard {
        id: "nm-manages",
        title: "NetworkManager manages the CNI's devices",
        severity: Severity::Warns,
        detect: "NetworkManager runs, there are cali*, flannel* or tunl0 devices, and no file of its configuration has unmanaged-devices.",
        why: "NetworkManager changes routes and addresses of the CNI's devices.",
        reference: "rancher/rke2#1053",
        cause: None,
        tested: Tested::Fixture,
        judge: network_manager,
    },
    Hazard {
        id: "softnet",
        title: "Packets are lost before the kernel looks at them",
        severity: Severity::Warns,
        detect: "The counter dropped in /proc/net/softnet_stat, or rx_missed_errors or rx_fifo_errors of a physical device, moves.",
        why: "A SYN that is lost there is seen by no hook and no packet capture.",
        reference: "https://docs.kernel.org/admin-guide/sysctl/net.html",
        cause: None,
        tested: Tested::Fixture,
        judge: softnet,
    },
    Hazard {
        id: "bpf-attached",
        title: "BPF programs decide about packets",
        severity: Severity::Informs,
        detect: "XDP programs (RTM_GETLINK) and tc programs of a clsact qdisc (RTM_GETTFILTER). Programs of cgroups are not looked at.",
        why: "They can drop or redirect a packet before the rules see it.",
        reference: "https://docs.kernel.org/bpf/",
        cause: Some("bpf.dropped"),
        tested: Tested::Lab("check-devices"),
        judge: programs,
    },
];

fn forwarding(node: &NodeState) -> State {
    if !has_kube_proxy(node) {
        return State::fine("no kube-proxy is found");
    }
    match node.number(FORWARD) {
        None => return State::unknown(format!("{FORWARD} is not readable")),
        Some(0) => {
            return State::armed(
                format!("{FORWARD} is 0: SYNs to pods on other nodes and replies from them are dropped"),
                [setting(node, FORWARD)],
                format!("sysctl -w {FORWARD}=1"),
            );
        }
        Some(_) => {}
    }
    let off: Vec<String> = node
        .per_device("forwarding")
        .into_iter()
        .filter(|(device, value)| *value == 0 && !matches!(*device, "all" | "default" | "lo"))
        .map(|(device, _)| format!("net.ipv4.conf.{device}.forwarding"))
        .collect();
    if off.is_empty() {
        return State::fine("forwarding is on");
    }
    let commands: Vec<String> = off.iter().map(|name| format!("{name}=1")).collect();
    State::armed(
        format!(
            "{} is 0: packets that come in there are not forwarded",
            list(&off)
        ),
        off.iter().map(|name| setting(node, name)),
        format!("sysctl -w {}", commands.join(" ")),
    )
}

fn rp_filter(node: &NodeState) -> State {
    let filters = node.per_device("rp_filter");
    let Some(&all) = filters.get("all") else {
        return State::unknown("net.ipv4.conf.all.rp_filter is not readable");
    };
    let own = |device: &str| filters.get(device).copied().unwrap_or(0);
    let is_strict = |device: &str| own(device).max(all) == 1;
    let dropped = node.counters.growth("TcpExt.IPReversePathFilter").unwrap_or(0);
    let uplinks: BTreeSet<&str> = node
        .gateways
        .iter()
        .map(|peer| peer.device.as_str())
        .filter(|device| *device != "lo")
        .collect();
    let mut strict: BTreeSet<&str> = node
        .devices
        .iter()
        .filter(|device| device.tunnel_overhead().is_some())
        .map(|device| device.name.as_str())
        .filter(|device| is_strict(device))
        .collect();
    if uplinks.len() > 1 {
        strict.extend(uplinks.iter().filter(|device| is_strict(device)));
    }
    let strict: Vec<String> = strict.into_iter().map(str::to_owned).collect();
    let evidence = strict
        .iter()
        .map(String::as_str)
        .chain(["all"])
        .map(|device| setting(node, &format!("net.ipv4.conf.{device}.rp_filter")));
    // The greater of the two values counts, so that 2 on the device is enough.
    let loosened = |devices: &[String]| {
        let commands: Vec<String> = devices
            .iter()
            .map(|device| format!("net.ipv4.conf.{device}.rp_filter=2"))
            .collect();
        format!("sysctl -w {}", commands.join(" "))
    };
    if dropped > 0 {
        let advice = if strict.is_empty() {
            "see which device has net.ipv4.conf.DEVICE.rp_filter = 1 and set it to 2; a route back to the source helps too".to_owned()
        } else {
            loosened(&strict)
        };
        return State::hurts(
            format!(
                "the reverse path filter dropped {} within {} s",
                count(dropped, "packet", "packets"),
                node.interval_s
            ),
            evidence.chain([format!("IPReversePathFilter +{dropped}")]),
            advice,
        );
    }
    if strict.is_empty() {
        return State::fine("no strict reverse path filter on a tunnel or one of several uplinks");
    }
    State::armed(
        format!(
            "the reverse path filter of {} is strict: packets are dropped when their way back differs",
            list(&strict)
        ),
        evidence,
        loosened(&strict),
    )
}

fn bridge(node: &NodeState) -> State {
    if !has_kube_proxy(node) {
        return State::fine("no kube-proxy is found");
    }
    let is_other = |device: &&Device| {
        device.kind == "bridge" && device.name != "docker0" && !device.name.starts_with("virbr")
    };
    let bridges: Vec<String> = node
        .devices
        .iter()
        .filter(is_other)
        .map(|device| device.name.clone())
        .collect();
    if bridges.is_empty() {
        return State::fine("no bridge for pods");
    }
    let (what, advice) = match node.number(BRIDGE) {
        Some(1) => return State::fine(format!("{BRIDGE} is 1")),
        Some(value) => (format!("{BRIDGE} is {value}"), format!("sysctl -w {BRIDGE}=1")),
        None => (
            "br_netfilter is not loaded".to_owned(),
            format!("modprobe br_netfilter && sysctl -w {BRIDGE}=1"),
        ),
    };
    State::armed(
        format!(
            "{what}: replies between pods on {} are not translated back",
            list(&bridges)
        ),
        [setting(node, BRIDGE), format!("bridges: {}", list(&bridges))],
        advice,
    )
}

fn neighbours(node: &NodeState) -> State {
    let mut fine = Vec::new();
    for (group, name) in [
        ("arp", "net.ipv4.neigh.default.gc_thresh3"),
        ("ndisc", "net.ipv6.neigh.default.gc_thresh3"),
    ] {
        let (Some(entries), Some(limit)) = (
            node.counters.get(&format!("{group}.entries")),
            node.number(name).and_then(|limit| u64::try_from(limit).ok()),
        ) else {
            continue;
        };
        let evidence = [format!("{group} entries = {entries}"), setting(node, name)];
        let advice = format!(
            "in the first network namespace: sysctl -w {name}={} {}={limit}",
            limit.saturating_mul(4),
            name.replace("gc_thresh3", "gc_thresh2"),
        );
        let full = node.counters.growth(&format!("{group}.table_fulls")).unwrap_or(0);
        if full > 0 {
            return State::hurts(
                format!(
                    "the neighbour table was full {} within {} s: addresses are not resolved",
                    count(full, "time", "times"),
                    node.interval_s
                ),
                evidence,
                advice,
            );
        }
        if entries.saturating_mul(5) > limit.saturating_mul(4) {
            return State::armed(
                format!(
                    "the neighbour table is nearly full ({entries}/{limit}): beyond the limit, addresses are not resolved"
                ),
                evidence,
                advice,
            );
        }
        fine.push(format!("{entries} of {limit} {group} entries"));
    }
    if fine.is_empty() {
        return State::unknown("gc_thresh3 is not readable here; it is in the first network namespace");
    }
    State::fine(fine.join(", "))
}

fn mtu(node: &NodeState) -> State {
    let physical = node
        .devices
        .iter()
        .filter(|device| device.is_physical && device.is_up)
        .min_by_key(|device| device.mtu);
    let Some(physical) = physical else {
        return State::fine("no physical device is up");
    };
    for tunnel in node.devices.iter().filter(|device| device.is_up) {
        let Some(overhead) = tunnel.tunnel_overhead() else {
            continue;
        };
        let fits = physical.mtu.saturating_sub(overhead);
        if tunnel.mtu > fits {
            return State::armed(
                format!(
                    "{} has MTU {}, but {} leaves {fits}: large packets to pods on other nodes vanish",
                    tunnel.name, tunnel.mtu, physical.name
                ),
                [
                    format!("{} MTU = {}", tunnel.name, tunnel.mtu),
                    format!("{} MTU = {}", physical.name, physical.mtu),
                ],
                format!("set the CNI's MTU to {fits} or less"),
            );
        }
    }
    State::fine("every tunnel fits into the network")
}

fn network_manager(node: &NodeState) -> State {
    if !node.processes.contains("NetworkManager") {
        return State::fine("NetworkManager does not run");
    }
    let is_cni = |name: &str| {
        name.starts_with("cali")
            || name.starts_with("flannel")
            || name.starts_with("vxlan.calico")
            || name == "tunl0"
    };
    let devices: Vec<String> = node
        .devices
        .iter()
        .filter(|device| is_cni(&device.name))
        .map(|device| device.name.clone())
        .collect();
    if devices.is_empty() {
        return State::fine("no device of Calico or flannel");
    }
    if node.has_unmanaged_devices {
        return State::fine("NetworkManager's configuration has unmanaged-devices");
    }
    State::armed(
        "NetworkManager manages the CNI's devices: it can remove their routes and addresses",
        [format!("devices: {}", list(&devices))],
        "write [keyfile] and unmanaged-devices=interface-name:cali*;interface-name:tunl*;interface-name:vxlan.calico;interface-name:flannel* to /etc/NetworkManager/conf.d/cni.conf, then systemctl reload NetworkManager",
    )
}

fn softnet(node: &NodeState) -> State {
    if let Some(state) = read_once(node) {
        return state;
    }
    let grown: Vec<String> = [
        "softnet.dropped",
        "device.rx_missed_errors",
        "device.rx_fifo_errors",
    ]
    .into_iter()
    .filter_map(|name| {
        let growth = node.counters.growth(name).filter(|growth| *growth > 0)?;
        Some(format!("{name} +{growth}"))
    })
    .collect();
    if grown.is_empty() {
        return State::fine(format!(
            "no packet was lost before the kernel within {} s",
            node.interval_s
        ));
    }
    State::hurts(
        format!(
            "packets were lost before the kernel looked at them within {} s ({})",
            node.interval_s,
            grown.join(", ")
        ),
        grown,
        "spread the load over more CPUs (RSS, RPS), raise net.core.netdev_max_backlog, and enlarge the ring: ethtool -G DEVICE rx 4096",
    )
}

fn programs(node: &NodeState) -> State {
    let found: Vec<String> = node
        .devices
        .iter()
        .flat_map(|device| {
            device
                .programs
                .iter()
                .map(move |program| format!("{program} on {}", device.name))
        })
        .collect();
    let Some(first) = found.first() else {
        return State::fine("no XDP and no tc program");
    };
    State::armed(
        format!(
            "{} can drop or redirect packets before the rules see them: {first}{}",
            count(found.len() as u64, "BPF program", "BPF programs"),
            if found.len() > 1 { ", ..." } else { "" }
        ),
        found.clone(),
        "see what they do: bpftool prog show id ID",
    )
}
