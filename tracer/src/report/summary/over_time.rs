//! Flows by the time of their start.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::brief::Brief;
use crate::{finding::clock::rfc3339, flow::fate::Fate};

/// The most intervals.
const MOST_BINS: i64 = 60;

/// Round lengths of an interval, in seconds.
const STEPS_S: &[i64] = &[
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400,
];

/// Intervals without gaps from the first flow to the last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OverTime {
    /// Length of an interval in seconds.
    pub step_s: i64,
    /// The intervals.
    pub bins: Vec<Bin>,
}

/// One interval.
#[derive(Clone, Debug, Serialize)]
pub struct Bin {
    /// Start of the interval.
    pub start: String,
    /// Flows that started in it, by fate.
    pub by_fate: BTreeMap<Fate, u64>,
    /// Those that failed or were delayed, by fate.
    #[serde(skip)]
    pub failures_by_fate: BTreeMap<Fate, u64>,
}

impl Bin {
    /// Flows that started in it.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.by_fate.values().sum()
    }

    /// Flows that started in it and failed or were delayed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures_by_fate.values().sum()
    }
}

impl OverTime {
    /// Sorts flows, given in the order of their start, into intervals.
    pub(super) fn of<'a>(flows: impl DoubleEndedIterator<Item = &'a Brief> + Clone) -> Self {
        Self::count(flows.map(|brief| (brief.start, brief.fate, brief.is_failure())))
    }

    fn count(flows: impl DoubleEndedIterator<Item = (Timestamp, Fate, bool)> + Clone) -> Self {
        let (Some((first, ..)), Some((last, ..))) = (flows.clone().next(), flows.clone().next_back()) else {
            return Self::default();
        };
        let (first, last) = (first.as_second(), last.as_second());
        let step = step(first, last);
        let begin = first.div_euclid(step);
        let mut bins: Vec<Bin> = (begin..=last.div_euclid(step))
            .map(|number| Bin {
                start: Timestamp::UNIX_EPOCH
                    .checked_add(SignedDuration::from_secs(number.saturating_mul(step)))
                    .map(rfc3339)
                    .unwrap_or_default(),
                by_fate: BTreeMap::new(),
                failures_by_fate: BTreeMap::new(),
            })
            .collect();
        for (start, fate, is_failure) in flows {
            let number = start.as_second().div_euclid(step) - begin;
            if let Some(bin) = usize::try_from(number)
                .ok()
                .and_then(|number| bins.get_mut(number))
            {
                *bin.by_fate.entry(fate).or_default() += 1;
                if is_failure {
                    *bin.failures_by_fate.entry(fate).or_default() += 1;
                }
            }
        }
        Self { step_s: step, bins }
    }
}

/// The shortest interval that gives at most [`MOST_BINS`].
fn step(first: i64, last: i64) -> i64 {
    let fits = |step: i64| last.div_euclid(step) - first.div_euclid(step) < MOST_BINS;
    let day = 86_400;
    STEPS_S
        .iter()
        .copied()
        .find(|&step| fits(step))
        .unwrap_or_else(|| ((last - first) / (MOST_BINS - 1) / day + 1) * day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn every_flow_is_in_one_of_at_most_60_intervals() {
        for length in [0, 1, 59, 60, 61, 3_599, 86_400, 31_536_000, 3_153_600_000] {
            let flows: Vec<(Timestamp, Fate, bool)> = (0..=100)
                .map(|part| (at(1_764_000_123 + length * part / 100), Fate::Stalled, true))
                .collect();
            let over_time = OverTime::count(flows.iter().copied());
            let all: u64 = over_time.bins.iter().map(Bin::flows).sum();
            assert_eq!(all, 101, "{length}");
            assert!(over_time.bins.len() <= 60, "{length}: {}", over_time.bins.len());
            assert!(over_time.bins.first().is_some_and(|bin| bin.failures() > 0));
            assert!(over_time.bins.last().is_some_and(|bin| bin.failures() > 0));
        }
    }

    #[test]
    fn without_flows_there_are_no_intervals() {
        assert!(OverTime::count(std::iter::empty()).bins.is_empty());
    }
}
