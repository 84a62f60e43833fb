//! One of the two recordings of a difference.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    diagnose::{self, catalogue, cause::Cause},
    finding::{
        Finding,
        clock::{milliseconds, rfc3339},
        head::Head,
        run::End,
    },
    flow::fate::Fate,
};

/// The most damage that is listed.
const MOST_DAMAGE: usize = 10;

/// What is known about one side.
#[derive(Clone, Debug, Serialize)]
pub struct Recorded {
    /// The file's name.
    pub file: String,
    /// The host.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// Start of the first flow.
    pub first: Option<String>,
    /// Start of the last flow.
    pub last: Option<String>,
    /// Number of connections.
    pub flows: u64,
    /// Records lost.
    pub lost: u64,
}

/// Collects the connections of one recording.
#[derive(Debug, Default)]
pub struct Side {
    file: String,
    host: String,
    kernel: String,
    ports: Vec<u16>,
    /// By the number of the run and of the flow.
    flows: BTreeMap<(usize, u64), Brief>,
    runs: usize,
    undetectable: Vec<Cause>,
    lost: u64,
    evicted: u64,
    damage: Vec<String>,
}

/// What is kept of a connection.
#[derive(Clone, Copy, Debug)]
struct Brief {
    start: Timestamp,
    fate: Fate,
    cause: Option<Cause>,
    lost_ns: u64,
    connect_ns: Option<u64>,
}

impl Side {
    /// A side without connections.
    #[must_use]
    pub fn new(file: String) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// A run begins.
    pub fn begin(&mut self, head: &Head) {
        self.runs += 1;
        self.host.clone_from(&head.host);
        self.kernel.clone_from(&head.kernel);
        self.ports.clone_from(&head.ports);
        let has = |name: &str| {
            let hook = head.hooks.iter().find(|hook| hook.name == name);
            hook.is_some_and(|hook| hook.state.is_available())
        };
        let missing = catalogue::undetectable(|hook| has(hook.name()));
        self.undetectable = missing.into_iter().map(|(cause, _)| cause).collect();
    }

    /// A flow's fate is known, or has changed.
    pub fn add(&mut self, finding: &Finding<'_>, is_selected: bool) {
        let key = (self.runs, finding.flow.id);
        if !is_selected {
            self.flows.remove(&key);
            return;
        }
        let brief = Brief {
            start: finding.clock.at(finding.flow.start_ns()),
            fate: finding.fate,
            cause: finding.diagnosis.cause,
            lost_ns: finding.lost_ns(),
            connect_ns: finding.flow.connect_ns(),
        };
        self.flows.insert(key, brief);
    }

    /// The run ends with its counters.
    pub fn end(&mut self, end: &End) {
        self.lost = self.lost.saturating_add(end.lost);
        self.evicted = self.evicted.saturating_add(end.evicted.total());
    }

    /// The recording is damaged.
    pub fn add_damage(&mut self, what: &str) {
        if self.damage.len() < MOST_DAMAGE {
            self.damage.push(what.to_owned());
        }
    }

    pub(super) fn flows(&self) -> u64 {
        self.flows.len() as u64
    }

    pub(super) fn failures(&self) -> u64 {
        let briefs = self.flows.values();
        let failed = briefs.filter(|brief| diagnose::is_failure(brief.fate, brief.cause));
        failed.count() as u64
    }

    pub(super) fn fates(&self) -> BTreeMap<Fate, u64> {
        let mut fates = BTreeMap::new();
        for brief in self.flows.values() {
            *fates.entry(brief.fate).or_default() += 1;
        }
        fates
    }

    pub(super) fn causes(&self) -> BTreeMap<Cause, u64> {
        let mut causes = BTreeMap::new();
        for cause in self.flows.values().filter_map(|brief| brief.cause) {
            *causes.entry(cause).or_default() += 1;
        }
        causes
    }

    pub(super) fn connect_ns(&self) -> Vec<u64> {
        let briefs = self.flows.values();
        briefs.filter_map(|brief| brief.connect_ns).collect()
    }

    pub(super) fn lost_ms(&self) -> f64 {
        let lost = self.flows.values().map(|brief| brief.lost_ns);
        milliseconds(lost.fold(0, u64::saturating_add))
    }

    /// The causes that could not have been detected.
    pub(super) fn undetectable(&self) -> &[Cause] {
        &self.undetectable
    }

    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn damage(&self) -> &[String] {
        &self.damage
    }

    pub(super) fn recorded(&self) -> Recorded {
        let starts = || self.flows.values().map(|brief| brief.start);
        Recorded {
            file: self.file.clone(),
            host: self.host.clone(),
            kernel: self.kernel.clone(),
            first: starts().min().map(rfc3339),
            last: starts().max().map(rfc3339),
            flows: self.flows(),
            lost: self.lost,
        }
    }

    #[cfg(test)]
    pub(super) fn with(flows: impl IntoIterator<Item = (Fate, Option<Cause>, u64)>) -> Self {
        let brief = |(fate, cause, ns)| Brief {
            start: Timestamp::UNIX_EPOCH,
            fate,
            cause,
            lost_ns: ns,
            connect_ns: Some(ns),
        };
        Self {
            flows: (0..)
                .zip(flows)
                .map(|(id, flow)| ((1, id), brief(flow)))
                .collect(),
            ..Self::default()
        }
    }
}
