//! The effects of one cause.

use std::collections::BTreeMap;

use serde::Serialize;

use super::brief::Brief;
use crate::{
    diagnose::{catalogue, cause::Cause},
    finding::clock::{milliseconds, rfc3339},
    flow::fate::Fate,
};

/// The most names of each kind listed for a cause; the rest are counted.
const MOST_NAMES: usize = 8;

/// The effects of one cause.
#[derive(Clone, Debug, Serialize)]
pub struct CauseSummary {
    /// The cause summarised here.
    pub cause: Cause,
    /// Flows with this cause.
    pub flows: u64,
    /// Flows with another cause that lost time to this one too, with another SYN.
    pub partly: u64,
    /// Number of client addresses affected.
    pub clients: usize,
    /// Time lost by all of its flows.
    pub lost_ms: f64,
    #[serde(skip)]
    pub(super) lost_ns: u64,
    /// Median of the time lost by a flow.
    pub median_lost_ms: f64,
    /// Start of its first flow.
    pub first: String,
    /// Start of its last flow.
    pub last: String,
    /// Its flows by fate.
    pub by_fate: BTreeMap<Fate, u64>,
    /// NodePorts, by flows.
    pub nodes: Names,
    /// Services, by flows.
    pub services: Names,
    /// Backends, by flows.
    pub backends: Names,
    /// Client addresses, by flows.
    pub client_addresses: Names,
    /// Source ports of the clients, by flows.
    pub source_ports: Names,
    /// With several runs: hosts on which it was found.
    #[serde(skip_serializing_if = "Names::is_empty")]
    pub found_on: Names,
    /// One of the first flows.
    pub example: Example,
    /// The advice of the catalogue.
    pub advice: Option<&'static str>,
}

/// A flow with a cause.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// Its number for `tracer show`; with several runs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<u64>,
    /// The client's address and port.
    pub client: String,
    /// The node's address and NodePort.
    pub node: String,
    /// What happened to that flow, and why.
    pub explanation: String,
}

/// Names with how often each occurs.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<String, u64>);

impl Names {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, name: String) {
        *self.0.entry(name).or_default() += 1;
    }

    /// The most frequent ones, and the number of the others.
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
        struct List<'a> {
            most: Vec<(&'a str, u64)>,
            others: usize,
        }
        let (most, others) = self.first(MOST_NAMES);
        List { most, others }.serialize(serializer)
    }
}

impl CauseSummary {
    pub(super) fn new(cause: Cause, first: &Brief, example: Example) -> Self {
        Self {
            cause,
            flows: 0,
            partly: 0,
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

    /// Adds a flow that has this cause.
    pub(super) fn add(&mut self, brief: &Brief, lost_ns: u64) {
        self.flows += 1;
        *self.by_fate.entry(brief.fate).or_default() += 1;
        self.affect(brief, lost_ns);
    }

    /// Adds a flow that has another cause and lost this time to this one.
    pub(super) fn add_part(&mut self, brief: &Brief, lost_ns: u64) {
        self.partly += 1;
        self.affect(brief, lost_ns);
    }

    fn affect(&mut self, brief: &Brief, lost_ns: u64) {
        self.lost_ns = self.lost_ns.saturating_add(lost_ns);
        self.lost_ms = milliseconds(self.lost_ns);
        self.last = rfc3339(brief.start);
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

    /// Counts the host on which it was found.
    pub(super) fn found_on(&mut self, host: &str) {
        self.found_on.add(host.to_owned());
    }

    /// The affected clients, services and backends, and the place where it was found.
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
