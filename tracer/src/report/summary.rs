//! What happened, over many flows: fates, causes by what they cost, and whom they hit. Pure.

mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use jiff::Timestamp;
use serde::Serialize;

use super::{Clock, milliseconds, rfc3339};
use crate::{
    diagnose::{Diagnosis, catalogue, cause::Cause},
    flow::{fate::Fate, model::Flow},
    node::facts::Facts,
};

pub use text::text;

/// So many names of each kind are told for a cause; more are counted.
const MOST_NAMES: usize = 8;

/// What is kept of one flow.
#[derive(Clone, Debug)]
struct Brief {
    start: Timestamp,
    fate: Fate,
    cause: Option<Cause>,
    lost_ns: u64,
    client: SocketAddr,
    node: SocketAddr,
    service: Option<String>,
    backend: Option<SocketAddr>,
    /// What happened, of flows with a cause.
    explanation: Option<Box<str>>,
}

/// Collects flows. What is said last about a flow stands.
#[derive(Debug, Default)]
pub struct Collection {
    flows: BTreeMap<(usize, u64), Brief>,
    run: usize,
    hosts: BTreeSet<(String, String)>,
    patience_ns: u64,
    records: u64,
    lost: u64,
}

impl Collection {
    /// What follows is of another run of the tracer.
    pub fn begin(&mut self, host: &str, kernel: &str, patience_ns: u64) {
        self.run += 1;
        self.hosts.insert((host.to_owned(), kernel.to_owned()));
        self.patience_ns = patience_ns;
    }

    /// A flow's fate is known, or has changed.
    pub fn add(&mut self, flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts, clock: &Clock) {
        let brief = Brief {
            start: clock.at(flow.start_ns()),
            fate,
            cause: diagnosis.cause,
            lost_ns: lost_ns(flow, fate, self.patience_ns),
            client: flow.client(),
            node: flow.node(),
            service: facts.service(flow).map(str::to_owned),
            backend: flow.backend(),
            explanation: diagnosis.cause.map(|_| diagnosis.explanation.as_str().into()),
        };
        self.flows.insert((self.run, flow.id), brief);
    }

    /// A run has ended.
    pub fn end(&mut self, records: u64, lost: u64) {
        self.records = self.records.saturating_add(records);
        self.lost = self.lost.saturating_add(lost);
    }

    /// What happened.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut fates = BTreeMap::new();
        let mut causes: BTreeMap<Cause, CauseSummary> = BTreeMap::new();
        let mut clients = BTreeMap::<Cause, BTreeSet<IpAddr>>::new();
        let mut losses = BTreeMap::<Cause, Vec<u64>>::new();
        let mut in_order: Vec<&Brief> = self.flows.values().collect();
        in_order.sort_by_key(|brief| brief.start);
        for brief in &in_order {
            *fates.entry(brief.fate).or_default() += 1;
            let Some(cause) = brief.cause else { continue };
            let summary = causes
                .entry(cause)
                .or_insert_with(|| CauseSummary::new(cause, brief));
            summary.add(brief);
            clients.entry(cause).or_default().insert(brief.client.ip());
            losses.entry(cause).or_default().push(brief.lost_ns);
        }
        let mut causes: Vec<CauseSummary> = causes.into_values().collect();
        for summary in &mut causes {
            summary.clients = clients.get(&summary.cause).map_or(0, BTreeSet::len);
            if let Some(losses) = losses.get_mut(&summary.cause) {
                losses.sort_unstable();
                summary.median_lost_ms = losses
                    .get(losses.len() / 2)
                    .map_or(0.0, |&lost| milliseconds(lost));
            }
        }
        causes.sort_by_key(|summary| std::cmp::Reverse((summary.lost_ns, summary.clients, summary.flows)));
        let mut by_clients: Vec<&CauseSummary> = causes.iter().collect();
        by_clients.sort_by_key(|summary| std::cmp::Reverse((summary.clients, summary.lost_ns)));
        Summary {
            hosts: self
                .hosts
                .iter()
                .map(|(host, kernel)| Host {
                    host: host.clone(),
                    kernel: kernel.clone(),
                })
                .collect(),
            first: in_order.first().map(|brief| rfc3339(brief.start)),
            last: in_order.last().map(|brief| rfc3339(brief.start)),
            flows: self.flows.len(),
            clients: in_order
                .iter()
                .map(|brief| brief.client.ip())
                .collect::<BTreeSet<_>>()
                .len(),
            records: self.records,
            lost: self.lost,
            by_fate: fates,
            by_clients: by_clients.iter().map(|summary| summary.cause).collect(),
            causes,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Where it was recorded.
    pub hosts: Vec<Host>,
    /// Start of the first flow.
    pub first: Option<String>,
    /// Start of the last flow.
    pub last: Option<String>,
    /// How many flows there were.
    pub flows: usize,
    /// How many clients.
    pub clients: usize,
    /// Records of the kernel's.
    pub records: u64,
    /// Records that were lost.
    pub lost: u64,
    /// Flows by fate.
    pub by_fate: BTreeMap<Fate, u64>,
    /// Causes, by the time that they cost.
    pub causes: Vec<CauseSummary>,
    /// Causes, by the clients that they hit.
    pub by_clients: Vec<Cause>,
}

/// A host and its kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// Its name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
}

/// What one cause did.
#[derive(Clone, Debug, Serialize)]
pub struct CauseSummary {
    /// The cause.
    pub cause: Cause,
    /// Flows that had it.
    pub flows: u64,
    /// Clients that it hit, by address.
    pub clients: usize,
    /// Time that it cost them together.
    pub lost_ms: f64,
    #[serde(skip)]
    lost_ns: u64,
    /// Time that it cost half of the flows at most.
    pub median_lost_ms: f64,
    /// Start of the first flow that had it.
    pub first: String,
    /// Start of the last one.
    pub last: String,
    /// Flows that had it, by fate.
    pub by_fate: BTreeMap<Fate, u64>,
    /// NodePorts, by flows.
    pub nodes: Names,
    /// Services.
    pub services: Names,
    /// Backends.
    pub backends: Names,
    /// Clients.
    pub client_addresses: Names,
    /// Source ports.
    pub source_ports: Names,
    /// What happened to the first flow.
    pub example: Example,
    /// What to do.
    pub advice: Option<&'static str>,
}

/// One flow of those with a cause.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// Its client.
    pub client: String,
    /// The node's address and NodePort.
    pub node: String,
    /// What happened.
    pub explanation: String,
}

/// Names and how often each occurs, the most frequent first.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<String, u64>);

impl Names {
    fn add(&mut self, name: String) {
        *self.0.entry(name).or_default() += 1;
    }

    /// The most frequent ones, and how many others there are.
    #[must_use]
    pub fn first(&self, most: usize) -> (Vec<(&str, u64)>, usize) {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let others = all.len().saturating_sub(most);
        all.truncate(most);
        (all, others)
    }
}

impl Serialize for Names {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told<'a> {
            most: Vec<(&'a str, u64)>,
            others: usize,
        }
        let (most, others) = self.first(MOST_NAMES);
        Told { most, others }.serialize(serializer)
    }
}

impl CauseSummary {
    fn new(cause: Cause, first: &Brief) -> Self {
        Self {
            cause,
            flows: 0,
            clients: 0,
            lost_ms: 0.0,
            lost_ns: 0,
            median_lost_ms: 0.0,
            first: rfc3339(first.start),
            last: String::new(),
            by_fate: BTreeMap::new(),
            nodes: Names::default(),
            services: Names::default(),
            backends: Names::default(),
            client_addresses: Names::default(),
            source_ports: Names::default(),
            example: Example {
                client: first.client.to_string(),
                node: first.node.to_string(),
                explanation: first.explanation.as_deref().unwrap_or_default().to_owned(),
            },
            advice: catalogue::row(cause).and_then(|row| row.advice),
        }
    }

    fn add(&mut self, brief: &Brief) {
        self.flows += 1;
        self.lost_ns = self.lost_ns.saturating_add(brief.lost_ns);
        self.lost_ms = milliseconds(self.lost_ns);
        self.last = rfc3339(brief.start);
        *self.by_fate.entry(brief.fate).or_default() += 1;
        self.nodes.add(brief.node.to_string());
        if let Some(service) = &brief.service {
            self.services.add(service.clone());
        }
        if let Some(backend) = brief.backend {
            self.backends.add(backend.to_string());
        }
        self.client_addresses.add(brief.client.ip().to_string());
        self.source_ports.add(brief.client.port().to_string());
    }
}

/// What a flow that did not go well cost its client, at least: a stall what had to be sent again, a refusal the time
/// until it came, all else the time for which nothing came.
fn lost_ns(flow: &Flow, fate: Fate, patience_ns: u64) -> u64 {
    match fate {
        Fate::Established | Fate::Pending => 0,
        Fate::Stalled => flow.stall_ns().unwrap_or(0),
        Fate::Refused => flow.refused_ns.unwrap_or(0).saturating_sub(flow.start_ns()),
        Fate::Dropped | Fate::Unanswered => flow
            .last_syn_ns()
            .saturating_sub(flow.start_ns())
            .saturating_add(patience_ns),
    }
}
