//! Hazards of kube-proxy in IPVS mode and of its device.

use std::net::IpAddr;

use super::{
    hazard::{Hazard, Severity, State, Tested, list},
    ipvs::in_use,
};
use crate::facts::node_state::NodeState;

/// The device that makes the addresses of services local.
const DUMMY: &str = "kube-ipvs0";

pub(super) const HAZARDS: [Hazard; 3] = [
    Hazard {
        id: "kube-ipvs0-foreign",
        title: "An address of another machine is local on kube-ipvs0",
        severity: Severity::Breaks,
        detect: "An address of kube-ipvs0 is also a gateway, a neighbour on another device, or the API server in kubelet's configuration.",
        why: "The node answers for that address itself: the other machine is unreachable from here.",
        reference: "kubernetes/kubernetes#75290",
        cause: None,
        tested: Tested::Lab("check-devices"),
        judge: foreign,
    },
    Hazard {
        id: "kube-ipvs0-missing",
        title: "The address of a virtual service is local on no device",
        severity: Severity::Breaks,
        detect: "There is a device kube-ipvs0, and a virtual service's address is none of the node's addresses (RTM_GETADDR).",
        why: "Packets to it are forwarded instead of being handled by IPVS, and get lost.",
        reference: "kubernetes/kubernetes#88012",
        cause: None,
        tested: Tested::Lab("check-devices"),
        judge: missing,
    },
    Hazard {
        id: "ipvs-deprecated",
        title: "kube-proxy's IPVS mode goes away",
        severity: Severity::Informs,
        detect: "There are virtual services, and kube-proxy's IP sets or chains.",
        why: "The mode is deprecated since Kubernetes 1.35 and planned to be off by default in 1.40 and removed in 1.43.",
        reference: "kubernetes/enhancements#5495",
        cause: None,
        tested: Tested::Lab("check-settings"),
        judge: deprecated,
    },
];

fn foreign(node: &NodeState) -> State {
    if let Some(why) = node.addresses.failure() {
        return State::unknown(format!("cannot read the node's addresses: {why}"));
    }
    let own: Vec<IpAddr> = node.addresses_of(DUMMY).collect();
    if own.is_empty() {
        return State::fine(format!("{DUMMY} has no address"));
    }
    let elsewhere = |device: &str| device != DUMMY;
    let gateways = node.gateways.iter().map(|peer| (peer, "the gateway"));
    let neighbours = node.neighbours.iter().map(|peer| (peer, "a neighbour"));
    let mut found: Vec<String> = gateways
        .chain(neighbours)
        .filter(|(peer, _)| elsewhere(&peer.device) && own.contains(&peer.ip))
        .map(|(peer, what)| format!("{} is {what} on {}", peer.ip, peer.device))
        .collect();
    if let Some(server) = node.api_server.filter(|server| own.contains(server)) {
        found.push(format!("{server} is the API server in kubelet's configuration"));
    }
    found.dedup();
    let Some(first) = found.first() else {
        return State::fine(format!("no address of {DUMMY} belongs to another machine"));
    };
    let address = first.split(' ').next().unwrap_or_default().to_owned();
    State::hurts(
        format!(
            "{address} is local on {DUMMY}, but belongs to another machine: that machine is unreachable from this node"
        ),
        found,
        format!(
            "remove {address} from the externalIPs or the load balancer status of the service that has it: kubectl get services -A -o wide | grep -F {address}"
        ),
    )
}

fn missing(node: &NodeState) -> State {
    let ipvs = match in_use(node) {
        Ok(ipvs) => ipvs,
        Err(state) => return state,
    };
    // Other programs make addresses local by routes.
    if !node.devices.iter().any(|device| device.name == DUMMY) {
        return State::fine(format!(
            "there is no {DUMMY}: the virtual services are not kube-proxy's"
        ));
    }
    let Some(addresses) = node.addresses.get() else {
        let why = node.addresses.failure().unwrap_or("not read");
        return State::unknown(format!("cannot read the node's addresses: {why}"));
    };
    let is_local = |ip: &IpAddr| ip.is_loopback() || addresses.iter().any(|address| address.ip == *ip);
    let mut missing: Vec<String> = ipvs
        .addresses()
        .map(|address| address.ip())
        .filter(|ip| !is_local(ip))
        .map(|ip| ip.to_string())
        .collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() {
        return State::fine("the addresses of all virtual services are local");
    }
    State::hurts(
        format!(
            "IPVS has virtual services for {}, but the node has no such address: packets to it do not reach IPVS",
            list(&missing)
        ),
        missing.iter().map(|ip| format!("{ip} is on no device")),
        "restart kube-proxy: it adds the address to kube-ipvs0",
    )
}

fn deprecated(node: &NodeState) -> State {
    if let Err(state) = in_use(node) {
        return state;
    }
    let sets = node.ip_sets.get().into_iter().flatten();
    let has_sets = sets.into_iter().any(|set| set.name.starts_with("KUBE-"));
    let has_dummy = node.devices.iter().any(|device| device.name == DUMMY);
    if !has_sets && !has_dummy {
        return State::fine("the virtual services are not kube-proxy's");
    }
    State::armed(
        "kube-proxy runs in IPVS mode, which is deprecated since Kubernetes 1.35, off by default in 1.40 and gone in 1.43",
        [if has_sets {
            "there are IP sets KUBE-*".to_owned()
        } else {
            format!("there is a device {DUMMY}")
        }],
        "plan the change to nftables mode. NodePorts then answer only on the node's primary addresses, and never on 127.0.0.1; record before and after, and compare",
    )
}
