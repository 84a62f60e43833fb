//! Flows of a run, counted by fate and by cause.

use std::collections::BTreeMap;

use super::verdict::Finding;
use crate::{diagnose::cause::Cause, flow::fate::Fate};

/// Counts each flow once, by its last finding.
#[derive(Debug, Default)]
pub struct Totals {
    flows: u64,
    /// Flows that cannot change any more.
    closed: Counts,
    /// The last finding of each other flow, by the flow's number.
    open: BTreeMap<u64, (Fate, Option<Cause>)>,
}

/// Flows by fate and by cause.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// The number of flows with each fate.
    pub by_fate: BTreeMap<Fate, u64>,
    /// The number of flows with each cause.
    pub by_cause: BTreeMap<Cause, u64>,
}

impl Counts {
    /// The fates in words: `2 stalled, 1 dropped`.
    #[must_use]
    pub fn fates(&self) -> String {
        let fates = self.by_fate.iter().map(|(fate, count)| format!("{count} {fate}"));
        fates.collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, fate: Fate, cause: Option<Cause>) {
        *self.by_fate.entry(fate).or_default() += 1;
        if let Some(cause) = cause {
            *self.by_cause.entry(cause).or_default() += 1;
        }
    }
}

/// The most flows that the engine keeps: an older flow cannot change any more.
const MOST_OPEN: usize = 200_000;

impl Totals {
    /// Counts a flow, in place of its previous finding.
    pub fn add(&mut self, finding: &Finding<'_>) {
        let id = finding.flow.id;
        if self.open.remove(&id).is_none() {
            self.flows += 1;
        }
        self.open.insert(id, (finding.fate, finding.diagnosis.cause));
        if self.open.len() > MOST_OPEN
            && let Some((_, (fate, cause))) = self.open.pop_first()
        {
            self.closed.add(fate, cause);
        }
    }

    /// The number of flows so far.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.flows
    }

    /// The counts of all flows so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.closed.clone();
        for (fate, cause) in self.open.values() {
            counts.add(*fate, *cause);
        }
        counts
    }

    /// Whether a flow had this fate.
    #[must_use]
    pub fn has(&self, fate: Fate) -> bool {
        self.counts().by_fate.contains_key(&fate)
    }
}
