//! Compares the flows that tracer printed with a scenario's expectations, and both with the ground truth:
//! what the clients experienced.

mod assignment;
mod attempts;
mod deviation;
mod flow;
mod judge;
mod matrix;
mod mismatch;
mod path;
#[cfg(test)]
mod tests;
mod truth;

use serde_json::Value;

use crate::protocol::Traffic;
use crate::scenario::Scenario;
use judge::Judge;
pub use matrix::Matrix;
pub use mismatch::Mismatch;

/// Compares tracer's JSON lines (all of them or only its flows) with the scenario and the truth. If several
/// lines have the same `id`, the last one counts. An empty list means that everything matches.
#[must_use]
pub fn judge(scenario: &Scenario, lines: &[Value], traffic: &[Traffic]) -> Vec<Mismatch> {
    let mut judge = Judge::new(scenario, traffic);
    judge.traffic();
    let flows = judge.read(lines);
    judge.flows(&flows);
    if let Some(totals) = &scenario.expect.totals {
        judge.totals(totals, &flows, lines);
    }
    judge.lost_records(lines);
    if scenario.expect.matrix {
        judge.deviations();
    }
    judge.mismatches
}

/// Compares only the clients' truth with the scenario: whether the scenario happened as intended.
#[must_use]
pub fn judge_traffic(scenario: &Scenario, traffic: &[Traffic]) -> Vec<Mismatch> {
    let mut judge = Judge::new(scenario, traffic);
    judge.traffic();
    judge.mismatches
}
