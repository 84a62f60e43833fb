//! What happens: whether those whom a step names are there, and whether it can be done at all.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::super::{Change, Connect, Membership, Proxy, Removal, RunIn, Step, Talk, Topology};
use super::topology::on_hosts_network;
use super::{known_pod, known_service, sysctl, weight};

/// Fails with the first contradiction.
pub(super) fn check(topology: &Topology, step: &Step) -> Result<()> {
    match step {
        Step::Connect(connect) => check_connect(topology, connect),
        Step::Parallel(connects) => {
            ensure!(connects.len() > 1, "one connect is not parallel to anything");
            for connect in connects {
                ensure!(
                    !connect.background,
                    "what is parallel cannot be in the background"
                );
                check_connect(topology, connect)?;
            }
            let mut seen = BTreeSet::new();
            for connect in connects {
                let (client, to) = (&connect.client, (&connect.to, connect.to_address));
                for port in connect.ports() {
                    ensure!(
                        seen.insert((client, port, to)),
                        "{client} connects twice at once from {port} to the same service"
                    );
                }
            }
            Ok(())
        }
        Step::Talk(Talk { client }) => known_client(topology, client),
        Step::Strays(strays) => {
            known_service(topology, strays.to.as_deref())?;
            known_client(topology, &strays.client)
        }
        Step::SetWeight(change) => {
            ensure!(topology.proxy == Proxy::Ipvs, "only IPVS knows weights");
            membership(topology, change)
        }
        Step::AddRealServer(change) => {
            weight(topology.proxy, change.weight)?;
            membership(topology, change)
        }
        Step::RemoveRealServer(Removal { service, pod }) => {
            known_service(topology, service.as_deref())?;
            known_pod(topology, pod)
        }
        Step::Pod(Change { name, behaviour }) => {
            known_pod(topology, name)?;
            match topology.pod(name) {
                Some(pod) if pod.host_network => on_hosts_network(*behaviour),
                _ => Ok(()),
            }
        }
        Step::Sysctl(values) => {
            ensure!(!values.is_empty(), "no sysctl is named");
            values.keys().try_for_each(|name| sysctl(name))
        }
        Step::Nft(text) | Step::Run(text) | Step::TracerSays(text) | Step::Say(text) => {
            ensure!(!text.trim().is_empty(), "the text is empty");
            Ok(())
        }
        Step::RunIn(RunIn { place, line }) => {
            ensure!(!line.trim().is_empty(), "the line is empty");
            ensure!(
                place == RunIn::NODE
                    || topology.client(place).is_some()
                    || topology.node(place).is_some()
                    || topology.pod(place).is_some(),
                "`{place}` is neither a client nor a pod, nor another node, nor `{}`",
                RunIn::NODE
            );
            Ok(())
        }
        Step::FatesTold(flows) => {
            ensure!(*flows > 0, "it waits for the fates of no flows");
            Ok(())
        }
        Step::SleepMs(_) => Ok(()),
    }
}

fn membership(topology: &Topology, change: &Membership) -> Result<()> {
    known_service(topology, change.service.as_deref())?;
    known_pod(topology, &change.pod)
}

fn known_client(topology: &Topology, name: &str) -> Result<()> {
    ensure!(topology.client(name).is_some(), "there is no client `{name}`");
    Ok(())
}

fn check_connect(topology: &Topology, connect: &Connect) -> Result<()> {
    let name = &connect.client;
    let party = topology.parties().find(|(party, _)| party == name);
    ensure!(party.is_some(), "there is no client `{name}`");
    let on_node = topology.client(name).is_some_and(|client| client.on_node);
    known_service(topology, connect.to.as_deref())?;
    if let Some(address) = connect.to_address {
        ensure!(
            topology.own_addresses().any(|own| own == address) || on_node && address.is_loopback(),
            "{address} is none of the node's addresses"
        );
    }
    ensure!(
        connect.count > 0 && connect.times > 0 && connect.at_once > 0,
        "it connects not even once"
    );
    ensure!(
        connect.source_port >= 1024 && connect.source_port.checked_add(connect.count - 1).is_some(),
        "source ports are 1024 to 65535"
    );
    ensure!(
        !connect.hold || connect.times == 1,
        "a connection that is held keeps its port"
    );
    ensure!(
        !connect.hold || connect.close.is_none(),
        "a connection that is held is not closed"
    );
    ensure!(connect.timeout_ms > 0, "no connection takes no time");
    if let Some(half_open) = &connect.half_open {
        ensure!(!on_node, "a client on the node has the node's TCP");
        ensure!(half_open.syns > 0, "it sends not even one SYN");
        let as_usual = connect.ttl.is_none() && connect.mss.is_none() && connect.abort_ms.is_none();
        ensure!(
            connect.sequence.is_none(),
            "the sequence number of a client without a TCP is part of `half_open`"
        );
        ensure!(
            as_usual && connect.close.is_none() && !connect.hold,
            "a client without a TCP only sends SYNs"
        );
    }
    Ok(())
}
