//! The topology: names, addresses and ports.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::super::{Behaviour, Overlay, Pod, Proxy, Scheduler, Service, Topology, Version, address};
use super::rules::{require_pod, require_unique, sysctl, weight};

/// Linux's limit for a device name (15), minus the four letters that the node's veth names start with.
const LONGEST_NAME: usize = 11;

/// Fails with the first contradiction.
pub(super) fn check(topology: &Topology) -> Result<()> {
    ensure!(
        topology.parties().next().is_some(),
        "no client, pod or other node: nothing can connect"
    );
    ensure!(!topology.services.is_empty(), "no services");
    names(topology)?;
    addresses(topology)?;
    ensure!(
        topology.overlay == Overlay::None || !topology.nodes.is_empty(),
        "an overlay needs another node"
    );
    for one in &topology.pods {
        pod(topology, one).with_context(|| one.name.clone())?;
    }
    let services = &topology.services;
    require_unique("service", services.iter().map(|service| &service.name))?;
    require_unique("NodePort", services.iter().map(|service| service.node_port))?;
    for one in services {
        service(topology, one).with_context(|| one.name.clone())?;
    }
    Ok(())
}

fn names(topology: &Topology) -> Result<()> {
    let clients = topology.clients.iter().map(|client| &client.name);
    let nodes = topology.nodes.iter().map(|node| &node.name);
    let pods = topology.pods.iter().map(|pod| &pod.name);
    let names: Vec<&String> = clients.chain(nodes).chain(pods).collect();
    require_unique("client, node or pod", names.iter())?;
    for name in names {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letters),
            "`{name}`: a name is part of a device name and has 1 to {LONGEST_NAME} characters of a-z, 0-9 and -"
        );
    }
    Ok(())
}

fn addresses(topology: &Topology) -> Result<()> {
    require_unique("address", topology.parties().map(|(_, address)| address))?;
    for address in &topology.node_addresses {
        ensure!(
            address::is_client_address(*address),
            "node address {address} is not in 10.0.0.2 to 10.0.0.254"
        );
    }
    require_unique("address of the node", topology.own_addresses())?;
    let own = |address: IpAddr| topology.own_addresses().any(|own| own == address);
    let outside = topology.clients.iter().filter(|client| !client.on_node);
    let outside = outside.map(|client| (&client.name, client.address));
    for (name, address) in outside.chain(topology.nodes.iter().map(|node| (&node.name, node.address))) {
        ensure!(
            address::is_client_address(address),
            "{name}: {address} is not in 10.0.0.2 to 10.0.0.254"
        );
        ensure!(!own(address), "{name}: {address} is an address of the node");
    }
    for client in topology.clients.iter().filter(|client| client.on_node) {
        let (name, address) = (&client.name, client.address);
        ensure!(
            own(address) || address.is_loopback(),
            "{name}: {address} is not an address of the node"
        );
    }
    Ok(())
}

fn pod(topology: &Topology, pod: &Pod) -> Result<()> {
    if let Some(name) = &pod.node {
        ensure!(topology.node(name).is_some(), "no node `{name}`");
    }
    pod.sysctls.keys().try_for_each(|name| sysctl(name))?;
    let Topology { pods, overlay, .. } = topology;
    if pod.host_network {
        let node = pod.node.as_ref().and_then(|name| topology.node(name));
        let node = node.map_or(topology.node_address(), |node| node.address);
        ensure!(pod.address == node, "{} is not its node's address", pod.address);
        let others = pods
            .iter()
            .filter(|other| (other.address, other.port) == (pod.address, pod.port));
        ensure!(
            others.count() == 1,
            "another pod also listens on port {}",
            pod.port
        );
        ensure!(
            pod.sysctls.is_empty(),
            "a pod in its node's netns cannot have its own sysctls"
        );
        return can_behave_on_host_network(pod.behaviour);
    }
    ensure!(
        address::is_pod_address(pod.address),
        "{} is not a pod address in {}",
        pod.address,
        address::pods(topology.family)
    );
    let network = address::network(pod.address);
    let others = pods
        .iter()
        .filter(|other| address::network(other.address) == network);
    ensure!(others.count() == 1, "the pod network {network} appears twice");
    ensure!(
        *overlay == Overlay::None || network != address::network(address::tunnel(topology.family, 0)),
        "{} is in the tunnel network",
        pod.address
    );
    Ok(())
}

/// Checks that a pod can behave like this without its own netns.
pub(super) fn can_behave_on_host_network(behaviour: Behaviour) -> Result<()> {
    ensure!(
        !matches!(behaviour, Behaviour::Gone | Behaviour::Slow | Behaviour::SynFull),
        "a pod in its node's netns cannot be {behaviour:?}"
    );
    Ok(())
}

fn service(topology: &Topology, service: &Service) -> Result<()> {
    ensure!(
        topology.proxy != Proxy::Nftables || topology.version != Version::V1_20,
        "kube-proxy 1.20 has no nftables mode"
    );
    ensure!(
        (30_000..=32_767).contains(&service.node_port),
        "{} is not a NodePort (30000 to 32767)",
        service.node_port
    );
    let servers = &service.real_servers;
    require_unique("real server", servers.iter().map(|server| &server.pod))?;
    for server in servers {
        require_pod(topology, &server.pod)?;
        weight(topology.proxy, server.weight)?;
    }
    ensure!(
        topology.proxy == Proxy::Ipvs || service.scheduler == Scheduler::default(),
        "only IPVS mode has schedulers"
    );
    ensure!(
        service
            .affinity_seconds
            .is_none_or(|seconds| (1..=86_400).contains(&seconds)),
        "`affinity_seconds` is 1 to 86400"
    );
    Ok(())
}
