//! Thousands of flows at a glance: true cause against told cause.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::Judge;
use super::truth::LOST_A_SECOND_MS;
use crate::protocol::{Outcome, Traffic};
use crate::scenario::{Expected, Fate, Scenario};

/// Of so many flows that were to be made at once, one may have been slowed down by the machine.
const SLOWED_AT_MOST: usize = 100;

/// What flows without a cause are called.
const NO_CAUSE: &str = "no cause";

/// What flows are called that the machine slowed down: their cause is not the scenario's doing, and not known.
const SLOWED: &str = "slowed by the machine";

/// What flows are called of which the network between client and node loses packets.
const LOSSY: &str = "lost outside of the node";

/// What flows are called of which tracer said nothing.
const UNTOLD: &str = "not told of";

/// Counts flows by true cause and told cause.
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
            let slowed = judge
                .truths
                .get(attempt)
                .is_some_and(|truth| was_slowed(scenario, expected, truth));
            let truth = match expected.cause {
                _ if slowed => SLOWED,
                _ if expected.lossy => LOSSY,
                Some(cause) => cause.word(),
                None => NO_CAUSE,
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
    /// One row for each true cause; the columns are the told ones, in the order and by the numbers of the rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let truths: BTreeSet<&str> = self.0.keys().map(|(truth, _)| truth.as_str()).collect();
        let told: BTreeSet<&str> = self.0.keys().map(|(_, told)| told.as_str()).collect();
        let mut names: Vec<&str> = truths.union(&told).copied().collect();
        // What most flows have comes first.
        let is_no_word = |name: &str| [SLOWED, LOSSY, UNTOLD].contains(&name);
        names.sort_by_key(|name| (*name != NO_CAUSE, is_no_word(name), *name));
        let flows: usize = self.0.values().sum();
        writeln!(f, "{flows} flows, by true cause (rows) and told cause (columns)")?;
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

/// Whether a connection that was to be made at once took a second: with thousands of them on an emulated machine that
/// happens, and is not what the scenario is about. What tracer says of it must fit what the client lived through.
pub(super) fn was_slowed(scenario: &Scenario, expected: &Expected, truth: &Traffic) -> bool {
    scenario.expect.matrix
        && !expected.lossy
        && expected.fate == Fate::Established
        && truth.outcome == Outcome::Connected
        && truth.ms >= LOST_A_SECOND_MS
}

impl Judge<'_> {
    /// Few flows may have been slowed down by the machine.
    pub(super) fn slowed(&mut self) {
        let scenario = self.scenario;
        let planned: Vec<_> = self
            .attempts
            .iter()
            .filter_map(|(attempt, _)| Some((attempt, scenario.expected(attempt)?)))
            .filter(|(_, expected)| expected.fate == Fate::Established)
            .collect();
        let slowed = planned.iter().filter(|(attempt, expected)| {
            let truth = self.truths.get(*attempt);
            truth.is_some_and(|truth| was_slowed(scenario, expected, truth))
        });
        let (slowed, all) = (slowed.count(), planned.len());
        if slowed * SLOWED_AT_MOST > all {
            self.wrong(
                "the machine",
                format!("{slowed} of {all} connections that were to be made at once took a second"),
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
            "4081 flows, by true cause (rows) and told cause (columns)\n\
             \u{20}                                 1     2     3\n\
             \u{20} 1  no cause                  4000     .     1\n\
             \u{20} 2  backend.silent               .    80     .\n\
             \u{20} 3  unknown                      .     .     ."
        );
    }
}
