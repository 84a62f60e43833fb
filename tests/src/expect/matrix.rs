//! A confusion matrix for thousands of flows: true cause by reported cause.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::deviation::{Deviation, deviation};
use super::judge::Judge;
use crate::protocol::Traffic;
use crate::scenario::Scenario;

/// The label of flows without a cause.
const NO_CAUSE: &str = "no cause";

/// The label of flows that the machine slowed: their cause is unknown and not the scenario's doing.
const SLOWED: &str = "slowed by the machine";

/// The label of flows whose client reports another outcome than the scenario planned: where copies of packets
/// arrive on two processors at once, IPVS may send them to two pods, and an entry may be gone early.
const UNPLANNED: &str = "not as planned";

/// The label of flows whose packets the network between client and node loses.
const LOSSY: &str = "lost outside the node";

/// The label of flows that tracer did not report.
const UNREPORTED: &str = "not reported";

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
            let deviation = truth.and_then(|truth| deviation(scenario, expected, truth));
            let truth = match (deviation, expected.cause) {
                (Some(Deviation::Slowed), _) => SLOWED,
                (Some(Deviation::Unplanned), _) => UNPLANNED,
                _ if expected.lossy => LOSSY,
                (None, Some(cause)) => cause.word(),
                (None, None) => NO_CAUSE,
            };
            let reported = match flows.get(attempt) {
                Some(flow) => flow.cause.as_deref().unwrap_or(NO_CAUSE),
                None => UNREPORTED,
            };
            *cells.entry((truth.to_owned(), reported.to_owned())).or_default() += 1;
        }
        Self(cells)
    }
}

impl fmt::Display for Matrix {
    /// One row per true cause; the columns are the reported causes, in the order and by the numbers of the
    /// rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let truths: BTreeSet<&str> = self.0.keys().map(|(truth, _)| truth.as_str()).collect();
        let reported: BTreeSet<&str> = self.0.keys().map(|(_, reported)| reported.as_str()).collect();
        let mut names: Vec<&str> = truths.union(&reported).copied().collect();
        // The most frequent label comes first.
        let is_special = |name: &str| [SLOWED, UNPLANNED, LOSSY, UNREPORTED].contains(&name);
        names.sort_by_key(|name| (*name != NO_CAUSE, is_special(name), *name));
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
            for reported in &names {
                let cell = (truth.to_string(), reported.to_string());
                match self.0.get(&cell) {
                    Some(count) => write!(f, "{count:>6}")?,
                    None => write!(f, "{:>6}", ".")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_and_a_column_for_each_cause() {
        let cell = |truth: &str, reported: &str, count| ((truth.to_owned(), reported.to_owned()), count);
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
