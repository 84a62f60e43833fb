//! The traffic whose cost is measured, and its servers.

use anyhow::{Context, Result};

use super::programs::Program;
use crate::guest::netns::Netns;
use crate::guest::topology::{self, Node};
use crate::scenario::{Proxy, Scenario};

/// The first source port of new connections, and the first that the kernel may choose for other ones.
const FIRST_PORT: u16 = 1024;
const END_PORT: u16 = 32_768;

/// The port of servers that belong to no service.
const FOREIGN_PORT: u16 = 9000;

/// The kind of traffic whose operations are new connections.
const CONNECT: &str = "connect";

/// One row of the table: a kind of traffic.
pub(super) struct Workload {
    pub(super) row: String,
    netns: Netns,
    kind: &'static str,
    to: String,
    /// Operations per batch.
    operations: u32,
}

impl Workload {
    /// Operations per batch; beside pwru everything takes much longer.
    pub(super) fn operations(&self, beside_pwru: bool) -> u32 {
        match self.kind {
            "bulk" => self.operations,
            _ if beside_pwru => self.operations / 5,
            _ => self.operations,
        }
    }

    /// Operations before the first batch.
    pub(super) fn warm_up(&self) -> u32 {
        match self.kind {
            "bulk" => self.operations,
            _ => self.operations / 5,
        }
    }
}

/// The workloads of a topology, with their running servers.
pub(super) struct Workloads {
    pub(super) all: Vec<Workload>,
    next_port: u16,
    _servers: Vec<Program>,
}

impl Workloads {
    /// Starts the servers. On a topology with IPVS there is all of the traffic, on others only new connections.
    pub(super) fn new(scenario: &Scenario, node: &Node, quick: bool) -> Result<Self> {
        let topology = &scenario.topology;
        let netns = |name: &str| {
            node.netns(name)
                .cloned()
                .with_context(|| format!("no netns {name}"))
        };
        let (client, node_itself) = (netns("client-a")?, Netns::node());
        let (from, to) = (netns("pod-1")?, netns("pod-2")?);
        let service = topology::address(topology, Some("web"), None)?.to_string();
        let pod = topology.pod("pod-2").context("no pod-2")?;
        let foreign = format!("{}:{FOREIGN_PORT}", pod.address);
        let loopback = format!("127.0.0.1:{FOREIGN_PORT}");
        let any = |port: u16| format!("0.0.0.0:{port}");
        let mut servers = vec![
            Program::server(&from, "tcp", &any(pod.port))?,
            Program::server(&to, "tcp", &any(pod.port))?,
        ];
        let dataplane = match topology.proxy {
            Proxy::Ipvs => "IPVS",
            Proxy::Nftables => "nftables",
            _ => "iptables",
        };
        let workload = |row: &str, netns: &Netns, kind, to: &str, operations| Workload {
            row: row.to_owned(),
            netns: netns.clone(),
            kind,
            to: to.to_owned(),
            operations,
        };
        let connection = format!("{dataplane}: new connection");
        let mut all = vec![workload(&connection, &client, CONNECT, &service, 400)];
        if topology.proxy == Proxy::Ipvs {
            servers.push(Program::server(&to, "tcp", &any(FOREIGN_PORT))?);
            servers.push(Program::server(&to, "udp", &any(FOREIGN_PORT))?);
            servers.push(Program::server(&node_itself, "tcp", &loopback)?);
            let trip = 400;
            all.push(workload("IPVS: TCP round trip", &client, "tcp", &service, trip));
            all.push(workload(
                "pod to pod: TCP round trip",
                &from,
                "tcp",
                &foreign,
                trip,
            ));
            all.push(workload(
                "loopback: TCP round trip",
                &node_itself,
                "tcp",
                &loopback,
                trip,
            ));
            if !quick {
                all.push(workload(
                    "IPVS: KiB of bulk data",
                    &client,
                    "bulk",
                    &service,
                    2048,
                ));
                all.push(workload(
                    "pod to pod: UDP round trip",
                    &from,
                    "udp",
                    &foreign,
                    trip,
                ));
                all.push(workload(
                    "node to pod: TCP round trip",
                    &node_itself,
                    "tcp",
                    &foreign,
                    trip,
                ));
            }
        }
        Ok(Self {
            all,
            next_port: FIRST_PORT,
            _servers: servers,
        })
    }

    /// Starts the client of a workload that will do this many operations.
    pub(super) fn client(&mut self, nth: usize, operations: u32) -> Result<Program> {
        let first_port = self.next_port;
        let workload = &self.all[nth];
        if workload.kind == CONNECT {
            // No connection meets what is left of an earlier one.
            self.next_port = u16::try_from(operations)
                .ok()
                .and_then(|count| first_port.checked_add(count))
                .filter(|next| *next <= END_PORT)
                .context("no source ports left")?;
        }
        let port = first_port.to_string();
        Program::client(&workload.netns, &[workload.kind, &workload.to, &port])
            .with_context(|| format!("cannot start `{}`", workload.row))
    }
}
