//! What one cause did.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Brief;
use crate::{
    diagnose::{catalogue, cause::Cause},
    finding::clock::{milliseconds, rfc3339},
    flow::fate::Fate,
};

/// So many names of each kind are told for a cause; more are counted.
const MOST_NAMES: usize = 8;

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
    pub(super) lost_ns: u64,
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
    /// Hosts on which it was found, where there are several runs.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub found_on: Names,
    /// What happened to one of the first flows.
    pub example: Example,
    /// What to do.
    pub advice: Option<&'static str>,
}

/// One flow of those with a cause.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// Its number, as `tracer show` takes it; of several runs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<u64>,
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
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

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
    pub(super) fn new(cause: Cause, first: &Brief, example: Example) -> Self {
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
            found_on: Names::default(),
            example,
            advice: catalogue::row(cause).and_then(|row| row.advice),
        }
    }

    pub(super) fn add(&mut self, brief: &Brief) {
        self.flows += 1;
        self.lost_ns = self.lost_ns.saturating_add(brief.lost_ns);
        self.lost_ms = milliseconds(self.lost_ns);
        self.last = rfc3339(brief.start);
        *self.by_fate.entry(brief.fate).or_default() += 1;
        self.nodes.add(brief.to.node.to_string());
        if let Some(service) = &brief.to.service {
            self.services.add(service.clone());
        }
        if let Some(backend) = brief.to.backend {
            self.backends.add(backend.to_string());
        }
        self.client_addresses.add(brief.client.ip().to_string());
        self.source_ports.add(brief.client.port().to_string());
    }

    /// It was found on this host.
    pub(super) fn found_on(&mut self, host: &str) {
        self.found_on.add(host.to_owned());
    }

    /// Whom it hit, by kind, and who found it.
    #[must_use]
    pub fn names(&self) -> [(&'static str, &Names); 6] {
        [
            ("service", &self.services),
            ("NodePort", &self.nodes),
            ("backend", &self.backends),
            ("client", &self.client_addresses),
            ("source port", &self.source_ports),
            ("found on", &self.found_on),
        ]
    }
}
