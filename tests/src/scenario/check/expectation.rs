//! Expectations: each flow that the steps create has exactly one.

use anyhow::{Result, bail, ensure};

use super::super::Scenario;
use super::rules::require_pod;

/// Fails with the first contradiction.
pub(super) fn check(scenario: &Scenario) -> Result<()> {
    let attempts = scenario.attempts();
    ensure!(!attempts.is_empty(), "no step connects");
    let expect = &scenario.expect;
    for flow in &expect.flows {
        let which = format!("{}:{}", flow.client, flow.source_port);
        let created = attempts
            .iter()
            .filter(|(attempt, _)| flow.covers(attempt))
            .count();
        ensure!(
            created > 0 && created == usize::from(flow.count),
            "no step creates the expected flows {which}, count {}, occurrence {}",
            flow.count,
            flow.occurrence
        );
        if let Some(key) = flow.unknown.keys().next() {
            bail!("unknown key in the expectation of {which}: `{key}`");
        }
    }
    for (attempt, _) in &attempts {
        let count = expect.flows.iter().filter(|flow| flow.covers(attempt)).count();
        ensure!(count <= 1, "{attempt}: expected {count} times");
        let Some(expected) = scenario.expected(attempt) else {
            bail!("no expectation for {attempt}, and no default");
        };
        ensure!(
            !expected.lossy || expected.cause.is_none() && expected.syns.is_none(),
            "{attempt}: a lossy flow cannot have an expected cause or number of SYNs"
        );
        if let Some(pod) = &expected.backend {
            require_pod(&scenario.topology, pod)?;
        }
        for evidence in &expected.evidence {
            ensure!(
                evidence.key.is_some() || evidence.value.is_some(),
                "{attempt}: empty evidence"
            );
        }
    }
    let path = expect.flows.iter().flat_map(|flow| &flow.expected.path);
    let default = expect.default.iter().flat_map(|expected| &expected.path);
    ensure!(
        path.chain(default).all(|text| !text.is_empty()),
        "an empty text in `path` would match every step"
    );
    if let Some(totals) = &expect.totals {
        ensure!(
            totals.flows == scenario.reported(),
            "totals expect {} flows, but the steps create {}",
            totals.flows,
            scenario.reported()
        );
        let fates: usize = totals.by_fate.values().sum();
        ensure!(
            fates == totals.flows,
            "the fates add up to {fates}, not {}",
            totals.flows
        );
    }
    Ok(())
}
