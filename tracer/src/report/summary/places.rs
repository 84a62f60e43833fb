//! Flows by service, NodePort, backend, client and source port.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Display};

use serde::Serialize;

use super::brief::Brief;
use crate::finding::clock::milliseconds;

/// The most places listed of each kind; the rest are counted.
const MOST: usize = 10;

/// Flows by service, NodePort, backend, client and source port.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Places {
    /// Services, where they have names.
    pub services: Ranking,
    /// Addresses and NodePorts.
    pub nodes: Ranking,
    /// Backends to which a SYN was sent.
    pub backends: Ranking,
    /// Addresses of clients.
    pub clients: Ranking,
    /// Source ports of clients.
    pub source_ports: Ranking,
}

/// The places of one kind, those with the most failed and delayed flows first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ranking {
    /// The first ones.
    pub most: Vec<Place>,
    /// Number of the others.
    pub others: usize,
}

/// One place.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// Its address, port or service name.
    pub name: String,
    /// Number of its flows.
    pub flows: u64,
    /// Those that failed or were delayed.
    #[serde(rename = "not_well")]
    pub failures: u64,
    /// Time lost by these.
    pub lost_ms: f64,
}

#[derive(Default)]
struct Tally {
    flows: u64,
    failures: u64,
    lost_ns: u64,
}

impl Places {
    pub(super) fn of<'a>(flows: impl Iterator<Item = &'a Brief> + Clone) -> Self {
        Self {
            services: ranking(flows.clone(), |brief| brief.to.service.as_deref()),
            nodes: ranking(flows.clone(), |brief| Some(brief.to.node)),
            backends: ranking(flows.clone(), |brief| brief.to.backend),
            clients: ranking(flows.clone(), |brief| Some(brief.client.ip())),
            source_ports: ranking(flows, |brief| Some(brief.client.port())),
        }
    }

    /// All kinds with their names.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, &Ranking); 5] {
        [
            ("service", &self.services),
            ("NodePort", &self.nodes),
            ("backend", &self.backends),
            ("client", &self.clients),
            ("source port", &self.source_ports),
        ]
    }
}

fn ranking<'a, N: Ord + Display>(
    flows: impl Iterator<Item = &'a Brief>,
    name: impl Fn(&'a Brief) -> Option<N>,
) -> Ranking {
    let mut tallies: BTreeMap<N, Tally> = BTreeMap::new();
    for brief in flows {
        let Some(name) = name(brief) else { continue };
        let tally = tallies.entry(name).or_default();
        tally.flows += 1;
        tally.failures += u64::from(brief.is_failure());
        tally.lost_ns = tally.lost_ns.saturating_add(brief.lost_ns);
    }
    let mut all: Vec<(N, Tally)> = tallies.into_iter().collect();
    all.sort_by_key(|(_, tally)| Reverse((tally.failures, tally.lost_ns, tally.flows)));
    let others = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    let place = |(name, tally): (N, Tally)| Place {
        name: name.to_string(),
        flows: tally.flows,
        failures: tally.failures,
        lost_ms: milliseconds(tally.lost_ns),
    };
    Ranking {
        most: all.into_iter().map(place).collect(),
        others,
    }
}
