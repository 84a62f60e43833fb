//! A confusion matrix for thousands of flows: true cause by reported cause.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::Judge;
use super::truth::{LOST_A_SECOND_MS, agrees};
use crate::protocol::{Outcome, Traffic};
use crate::scenario::{Expected, Fate, Scenario};

/// One in this many of the flows that should connect at once may be slowed by the machine.
const SLOWED_AT_MOST: usize = 100;

/// One in this many flows may deviate from the scenario's plan.
const OTHERWISE_AT_MOST: usize = 500;

/// The label of flows without a cause.
const NO_CAUSE: &str = "no cause";

/// The label of flows that the machine slowed: their cause is unknown and not the scenario's doing.
const SLOWED: &str = "slowed by the machine";

/// The label of flows whose client reports another outcome than the scenario planned: where copies of packets
/// arrive on two processors at once, IPVS may send them to two pods, and an entry may be gone early.
const OTHERWISE: &str = "not as planned";

/// The label of flows whose packets the network between client and node loses.
const LOSSY: &str = "lost outside the node";

/// The label of flows that tracer did not report.
const UNTOLD: &str = "not reported";

/// Flow counts by true and reported cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix(BTreeMap<(String, String), usize>);

impl Matrix {
    /// Counts the flows of a scenario.
    #[must_use]
    pub fn of(scenario: &Scenario, lines: &[Value], traffic: &[Traffic]) -> Self {
        let mut judge = Judge::new(scenario, traffic);
        let flows = judge.read(lines);
        let mut cells = BTreeMap::new();
        for (attempt, _) in &judge.attempts {
            let Some(expected) = scenario.expected(attempt) else {
                continue;
            };
            let truth = judge.truths.get(attempt);
            let disorder = truth.and_then(|truth| disorder(scenario, expected, truth));
            let truth = match (disorder, expected.cause) {
                (Some(Disorder::Slowed), _) => SLOWED,
                (Some(Disorder::Otherwise), _) => OTHERWISE,
                _ if expected.lossy => LOSSY,
                (None, Some(cause)) => cause.word(),
                (None, None) => NO_CAUSE,
            };
            let told = match flows.get(attempt) {
                Some(flow) => flow.cause.as_deref().unwrap_or(NO_CAUSE),
                None => UNTOLD,
            };
            *cells.entry((truth.to_owned(), told.to_owned())).or_default() += 1;
        }
        Self(cells)
    }
}

impl fmt::Display for Matrix {
    /// One row per true cause; the columns are the reported causes, in the order and by the numbers of the
    /// rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let truths: BTreeSet<&str> = self.0.keys().map(|(truth, _)| truth.as_str()).collect();
        let told: BTreeSet<&str> = self.0.keys().map(|(_, told)| told.as_str()).collect();
        let mut names: Vec<&str> = truths.union(&told).copied().collect();
        // The most frequent label comes first.
        let is_no_word = |name: &str| [SLOWED, OTHERWISE, LOSSY, UNTOLD].contains(&name);
        names.sort_by_key(|name| (*name != NO_CAUSE, is_no_word(name), *name));
        let flows: usize = self.0.values().sum();
        writeln!(
            f,
            "{flows} flows, by true cause (rows) and reported cause (columns)"
        )?;
        write!(f, "{:29}", "")?;
        for number in 1..=names.len() {
            write!(f, "{number:>6}")?;
        }
        for (number, truth) in (1..).zip(&names) {
            write!(f, "\n{number:3}  {truth:24}")?;
            for told in &names {
                let cell = (truth.to_string(), told.to_string());
                match self.0.get(&cell) {
                    Some(count) => write!(f, "{count:>6}")?,
                    None => write!(f, "{:>6}", ".")?,
                }
            }
        }
        Ok(())
    }
}

/// How a connection deviates from the scenario's plan. With thousands of connections on an emulated machine
/// that happens, and is not what the scenario tests. tracer's report must still match the client's
/// experience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disorder {
    /// It should have connected at once, and took a second.
    Slowed,
    /// Its fate is not the planned one.
    Otherwise,
}

/// Whether and how a connection deviates from the plan.
pub(super) fn disorder(scenario: &Scenario, expected: &Expected, truth: &Traffic) -> Option<Disorder> {
    if !scenario.expect.matrix || expected.lossy {
        return None;
    }
    let was_to_connect = expected.fate == Fate::Established;
    if was_to_connect && truth.outcome == Outcome::Connected && truth.ms >= LOST_A_SECOND_MS {
        return Some(Disorder::Slowed);
    }
    let cause = expected.cause.map(crate::scenario::Cause::word);
    let is_unheard = was_to_connect && truth.backend.is_none();
    (is_unheard || !agrees(expected.fate, cause, truth)).then_some(Disorder::Otherwise)
}

impl Judge<'_> {
    /// Checks that few flows deviate from the plan.
    pub(super) fn disorders(&mut self) {
        let scenario = self.scenario;
        let planned: Vec<_> = self
            .attempts
            .iter()
            .filter_map(|(attempt, _)| Some((attempt, scenario.expected(attempt)?)))
            .collect();
        let disorders: Vec<Disorder> = planned
            .iter()
            .filter_map(|(attempt, expected)| disorder(scenario, expected, self.truths.get(*attempt)?))
            .collect();
        let count = |wanted| disorders.iter().filter(|disorder| **disorder == wanted).count();
        let (slowed, otherwise) = (count(Disorder::Slowed), count(Disorder::Otherwise));
        let (all, to_connect) = (
            planned.len(),
            planned
                .iter()
                .filter(|(_, expected)| expected.fate == Fate::Established)
                .count(),
        );
        if slowed * SLOWED_AT_MOST > to_connect {
            self.wrong(
                "the machine",
                format!("{slowed} of {to_connect} connections took a second instead of connecting at once"),
            );
        }
        if otherwise * OTHERWISE_AT_MOST > all {
            self.wrong(
                "the machine",
                format!("{otherwise} of {all} connections did not go as planned"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_and_a_column_for_each_cause() {
        let cell = |truth: &str, told: &str, count| ((truth.to_owned(), told.to_owned()), count);
        let matrix = Matrix(BTreeMap::from([
            cell(NO_CAUSE, NO_CAUSE, 4000),
            cell(NO_CAUSE, "unknown", 1),
            cell("backend.silent", "backend.silent", 80),
        ]));
        assert_eq!(
            matrix.to_string(),
            "4081 flows, by true cause (rows) and reported cause (columns)\n\
             \u{20}                                 1     2     3\n\
             \u{20} 1  no cause                  4000     .     1\n\
             \u{20} 2  backend.silent               .    80     .\n\
             \u{20} 3  unknown                      .     .     ."
        );
    }
}
