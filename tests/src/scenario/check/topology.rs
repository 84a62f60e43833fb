//! Names, addresses and ports.

use anyhow::{Context, Result, ensure};

use super::super::{Overlay, Proxy, Scheduler, Topology, address};
use super::{known_pod, unique, weight};

/// Linux' limit for a device name, less the four letters that the node's ends of veths begin with.
const LONGEST_NAME: usize = 11;

/// Fails with the first contradiction.
pub(super) fn check(topology: &Topology) -> Result<()> {
    let Topology {
        clients,
        nodes,
        overlay,
        pods,
        services,
        proxy,
        nft: _,
        family: _,
    } = topology;
    ensure!(!clients.is_empty(), "there is no client");
    ensure!(!services.is_empty(), "there is no service");
    let names = || {
        clients
            .iter()
            .map(|client| &client.name)
            .chain(nodes.iter().map(|node| &node.name))
            .chain(pods.iter().map(|pod| &pod.name))
    };
    unique("client, node or pod", names())?;
    for name in names() {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letters),
            "`{name}`: a name is 1 to {LONGEST_NAME} of a-z, 0-9 and -, for it is part of a device's name"
        );
    }
    let addresses = || {
        let clients = clients.iter().map(|client| (&client.name, client.address));
        clients.chain(nodes.iter().map(|node| (&node.name, node.address)))
    };
    unique("address", addresses().map(|(_, address)| address))?;
    for (name, address) in addresses() {
        ensure!(
            address::is_clients(address),
            "{name}: {address} is none of 10.0.0.2 to 10.0.0.254"
        );
    }
    ensure!(
        *overlay == Overlay::None || !nodes.is_empty(),
        "there is an overlay, but no node that it leads to"
    );
    unique(
        "pod network",
        pods.iter().map(|pod| address::network(pod.address)),
    )?;
    for pod in pods {
        ensure!(
            address::is_pods(pod.address),
            "{}: {} is not in {}, or is the node's own end",
            pod.name,
            pod.address,
            address::pods(topology.family)
        );
        ensure!(
            *overlay == Overlay::None
                || address::network(pod.address) != address::network(address::tunnel(topology.family, 0)),
            "{}: {} is in the network of the tunnels",
            pod.name,
            pod.address
        );
        if let Some(name) = &pod.node {
            topology
                .node(name)
                .with_context(|| format!("{}: there is no node `{name}`", pod.name))?;
        }
    }
    unique("service", services.iter().map(|service| &service.name))?;
    unique("NodePort", services.iter().map(|service| service.node_port))?;
    for service in services {
        ensure!(
            (30_000..=32_767).contains(&service.node_port),
            "{}: {} is no NodePort: they are 30000 to 32767",
            service.name,
            service.node_port
        );
        unique(
            "real server",
            service.real_servers.iter().map(|server| &server.pod),
        )?;
        for server in &service.real_servers {
            known_pod(topology, &server.pod)?;
            weight(*proxy, server.weight)?;
        }
        ensure!(
            *proxy == Proxy::Ipvs || service.scheduler == Scheduler::default(),
            "{}: only IPVS has schedulers",
            service.name
        );
        ensure!(
            service
                .affinity_seconds
                .is_none_or(|seconds| (1..=86_400).contains(&seconds)),
            "{}: a client stays with its pod for 1 to 86400 s",
            service.name
        );
    }
    Ok(())
}
