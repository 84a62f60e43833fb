//! Names, addresses and ports.

use anyhow::{Result, ensure};

use super::super::{Topology, address};
use super::{known_pod, unique};

/// Linux' limit for a device name, less the four letters that the node's ends of veths begin with.
const LONGEST_NAME: usize = 11;

/// Fails with the first contradiction.
pub(super) fn check(topology: &Topology) -> Result<()> {
    let Topology {
        clients,
        pods,
        services,
        nft: _,
        family: _,
    } = topology;
    ensure!(!clients.is_empty(), "there is no client");
    ensure!(!services.is_empty(), "there is no service");
    let names = || {
        clients
            .iter()
            .map(|client| &client.name)
            .chain(pods.iter().map(|pod| &pod.name))
    };
    unique("client or pod", names())?;
    for name in names() {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letters),
            "`{name}`: a name is 1 to {LONGEST_NAME} of a-z, 0-9 and -, for it is part of a device's name"
        );
    }
    unique("address", clients.iter().map(|client| client.address))?;
    for client in clients {
        ensure!(
            address::is_clients(client.address),
            "{}: {} is none of 10.0.0.2 to 10.0.0.254",
            client.name,
            client.address
        );
    }
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
        }
    }
    Ok(())
}
