//! Steps: everything they name exists, and the lab can perform them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::super::{Change, Connect, Membership, Proxy, Removal, RunIn, Step, Talk, Topology};
use super::rules::{require_pod, require_service, sysctl, weight};
use super::topology::can_behave_on_host_network;

/// Fails with the first contradiction.
pub(super) fn check(topology: &Topology, step: &Step) -> Result<()> {
    match step {
        Step::Connect(connect) => check_connect(topology, connect),
        Step::Parallel(connects) => {
            ensure!(connects.len() > 1, "a parallel step needs at least two connects");
            for connect in connects {
                ensure!(
                    !connect.background,
                    "a parallel connect cannot be in the background"
                );
                check_connect(topology, connect)?;
            }
            let mut seen = BTreeSet::new();
            for connect in connects {
                let (client, to) = (&connect.client, (&connect.to, connect.to_address));
                for port in connect.ports() {
                    ensure!(
                        seen.insert((client, port, to)),
                        "{client} connects twice at once from port {port} to the same service"
                    );
                }
            }
            Ok(())
        }
        Step::Talk(Talk { client }) => require_client(topology, client),
        Step::Strays(strays) => {
            require_service(topology, strays.to.as_deref())?;
            require_client(topology, &strays.client)
        }
        Step::SetWeight(change) => {
            ensure!(topology.proxy == Proxy::Ipvs, "only IPVS mode has weights");
            membership(topology, change)
        }
        Step::AddRealServer(change) => {
            weight(topology.proxy, change.weight)?;
            membership(topology, change)
        }
        Step::RemoveRealServer(Removal { service, pod }) => {
            require_service(topology, service.as_deref())?;
            require_pod(topology, pod)
        }
        Step::Pod(Change { name, behaviour }) => {
            require_pod(topology, name)?;
            match topology.pod(name) {
                Some(pod) if pod.host_network => can_behave_on_host_network(*behaviour),
                _ => Ok(()),
            }
        }
        Step::Sysctl(values) => {
            ensure!(!values.is_empty(), "`sysctl` is empty");
            values.keys().try_for_each(|name| sysctl(name))
        }
        Step::Nft(text) | Step::Run(text) | Step::WaitForOutput(text) | Step::Say(text) => {
            ensure!(!text.trim().is_empty(), "the text is empty");
            Ok(())
        }
        Step::RunIn(RunIn { place, line }) => {
            ensure!(!line.trim().is_empty(), "`line` is empty");
            ensure!(
                place == RunIn::NODE
                    || topology.client(place).is_some()
                    || topology.node(place).is_some()
                    || topology.pod(place).is_some(),
                "`{place}` is not a client, a pod, another node or `{}`",
                RunIn::NODE
            );
            Ok(())
        }
        Step::WaitForFates(flows) => {
            ensure!(*flows > 0, "`fates_told` must be at least 1");
            Ok(())
        }
        Step::SleepMs(_) | Step::KubeProxy(_) | Step::NextRound(_) | Step::Measure(_) => Ok(()),
    }
}

fn membership(topology: &Topology, change: &Membership) -> Result<()> {
    require_service(topology, change.service.as_deref())?;
    require_pod(topology, &change.pod)
}

fn require_client(topology: &Topology, name: &str) -> Result<()> {
    ensure!(topology.client(name).is_some(), "no client `{name}`");
    Ok(())
}

fn check_connect(topology: &Topology, connect: &Connect) -> Result<()> {
    let name = &connect.client;
    let party = topology.parties().find(|(party, _)| party == name);
    ensure!(party.is_some(), "no client `{name}`");
    let on_node = topology.client(name).is_some_and(|client| client.on_node);
    require_service(topology, connect.to.as_deref())?;
    if let Some(address) = connect.to_address {
        ensure!(
            topology.own_addresses().any(|own| own == address)
                || topology.nodes.iter().any(|node| node.address == address)
                || on_node && address.is_loopback(),
            "{address} is not an address of the node or another one"
        );
    }
    ensure!(
        connect.count > 0 && connect.times > 0 && connect.at_once > 0,
        "`count`, `times` and `at_once` must be at least 1"
    );
    ensure!(
        connect.source_port >= 1024 && connect.source_port.checked_add(connect.count - 1).is_some(),
        "source ports are 1024 to 65535"
    );
    ensure!(
        !connect.hold || connect.times == 1,
        "`hold` needs `times = 1`: a held connection keeps its port"
    );
    ensure!(
        !connect.hold || connect.close.is_none(),
        "`hold` cannot be used with `close`"
    );
    if connect.from_node_port.is_some() {
        ensure!(
            !on_node && connect.count == 1 && connect.half_open.is_none() && connect.abort_ms.is_none(),
            "with `from_node_port`, `client` is the peer: one port that is not on the node"
        );
    }
    ensure!(connect.timeout_ms > 0, "`timeout_ms` must be at least 1");
    if let Some(half_open) = &connect.half_open {
        ensure!(
            !on_node,
            "`half_open` is not possible for a client on the node: it has the node's TCP"
        );
        ensure!(half_open.syns > 0, "`half_open.syns` must be at least 1");
        let as_usual = connect.ttl.is_none() && connect.mss.is_none() && connect.abort_ms.is_none();
        ensure!(
            connect.sequence.is_none(),
            "with `half_open`, use `half_open.sequence`"
        );
        ensure!(
            as_usual && connect.close.is_none() && !connect.hold,
            "`half_open` only sends SYNs: it cannot be used with `ttl`, `mss`, `abort_ms`, `close` or `hold`"
        );
    }
    Ok(())
}
