//! Flows of a run, counted by fate and by cause.

use std::collections::BTreeMap;

use super::{outcome::Outcome, verdict::Finding};
use crate::{diagnose::cause::Cause, flow::fate::Fate};

/// Counts each flow once, by its last finding.
#[derive(Debug, Default)]
pub struct Totals {
    flows: u64,
    /// Flows that cannot change any more.
    closed: BTreeMap<(Fate, Option<Cause>), u64>,
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

    fn add(&mut self, fate: Fate, cause: Option<Cause>, flows: u64) {
        *self.by_fate.entry(fate).or_default() += flows;
        if let Some(cause) = cause {
            *self.by_cause.entry(cause).or_default() += flows;
        }
    }
}

/// The most flows that the engine keeps: an older flow cannot change any more.
const MOST_OPEN: usize = 200_000;

impl Totals {
    /// Counts a flow, in place of its previous finding. Returns the fate of the previous finding, if there was one.
    pub fn add(&mut self, finding: &Finding<'_>) -> Option<Fate> {
        let id = finding.flow.id;
        let previous = self.open.remove(&id).map(|(fate, _)| fate);
        if previous.is_none() {
            self.flows += 1;
        }
        self.open.insert(id, (finding.fate, finding.diagnosis.cause));
        if self.open.len() > MOST_OPEN
            && let Some((_, outcome)) = self.open.pop_first()
        {
            *self.closed.entry(outcome).or_default() += 1;
        }
        previous
    }

    /// Whether the flow was counted, and can still change.
    #[must_use]
    pub fn has(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// The number of flows so far.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.flows
    }

    /// The counts of all flows so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for ((fate, cause), flows) in self.outcomes() {
            counts.add(fate, cause, flows);
        }
        counts
    }

    /// The number of flows with one of these outcomes.
    #[must_use]
    pub fn matching(&self, outcomes: &[Outcome]) -> u64 {
        self.outcomes()
            .filter(|((fate, cause), _)| outcomes.iter().any(|outcome| outcome.matches(*fate, *cause)))
            .map(|(_, flows)| flows)
            .sum()
    }

    /// The outcomes, each with a number of flows.
    fn outcomes(&self) -> impl Iterator<Item = ((Fate, Option<Cause>), u64)> {
        let closed = self.closed.iter().map(|(outcome, flows)| (*outcome, *flows));
        closed.chain(self.open.values().map(|outcome| (*outcome, 1)))
    }
}
