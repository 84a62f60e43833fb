//! Counts over all flows of a run.

use std::collections::BTreeMap;

use crate::{
    diagnose::cause::Cause,
    flow::{fate::Fate, model::Flow},
};

/// See the module.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) flows: u64,
    /// Flows of which no more is said.
    closed: Counts,
    /// What was last said about each of the others.
    open: BTreeMap<u64, (Fate, Option<Cause>)>,
}

/// Flows by fate and by cause.
#[derive(Clone, Default)]
pub(super) struct Counts {
    pub(super) by_fate: BTreeMap<Fate, u64>,
    pub(super) by_cause: BTreeMap<Cause, u64>,
}

impl Counts {
    /// How many flows had which fate, in words.
    pub(super) fn fates(&self) -> String {
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

/// The engine remembers no more flows: what was said about an older one stands.
const MOST_OPEN: usize = 200_000;

impl Totals {
    /// Takes note of what is said about a flow.
    pub(super) fn said(&mut self, flow: &Flow, fate: Fate, cause: Option<Cause>) {
        if self.open.remove(&flow.id).is_none() {
            self.flows += 1;
        }
        self.open.insert(flow.id, (fate, cause));
        if self.open.len() > MOST_OPEN
            && let Some((_, (fate, cause))) = self.open.pop_first()
        {
            self.closed.add(fate, cause);
        }
    }

    /// All flows so far.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.closed.clone();
        for (fate, cause) in self.open.values() {
            counts.add(*fate, *cause);
        }
        counts
    }
}
