//! What is expected: something of each flow that the steps make, and of no other.

use anyhow::{Result, bail, ensure};

use super::super::Scenario;
use super::known_pod;

/// Fails with the first contradiction.
pub(super) fn check(scenario: &Scenario) -> Result<()> {
    let attempts = scenario.attempts();
    ensure!(
        !attempts.is_empty(),
        "nobody connects, so there is nothing to expect"
    );
    let expect = &scenario.expect;
    for flow in &expect.flows {
        let which = format!("{}:{}", flow.client, flow.source_port);
        let made = attempts.iter().filter(|(attempt, _)| flow.is_of(attempt)).count();
        ensure!(
            made > 0 && made == usize::from(flow.count),
            "flows are expected that no step makes: {which}, count {}, occurrence {}",
            flow.count,
            flow.occurrence
        );
        if let Some(key) = flow.unknown.keys().next() {
            bail!("what is expected of {which} has an unknown key: `{key}`");
        }
    }
    for (attempt, _) in &attempts {
        let said = expect.flows.iter().filter(|flow| flow.is_of(attempt)).count();
        ensure!(
            said <= 1,
            "{attempt}: what is expected of it is said {said} times"
        );
        let Some(expected) = scenario.expected(attempt) else {
            bail!("nothing is expected of {attempt}, and there is no default");
        };
        ensure!(
            !expected.lossy || expected.cause.is_none() && expected.syns.is_none(),
            "{attempt}: it is not known what becomes of it"
        );
        if let Some(pod) = &expected.backend {
            known_pod(&scenario.topology, pod)?;
        }
        for evidence in &expected.evidence {
            ensure!(
                evidence.what.is_some() || evidence.value.is_some(),
                "{attempt}: evidence of nothing"
            );
        }
    }
    let path = expect.flows.iter().flat_map(|flow| &flow.expected.path);
    let default = expect.default.iter().flat_map(|expected| &expected.path);
    ensure!(
        path.chain(default).all(|text| !text.is_empty()),
        "a path holds everything that is empty"
    );
    if let Some(totals) = &expect.totals {
        ensure!(
            totals.flows == attempts.len(),
            "{} flows are expected, but the steps make {}",
            totals.flows,
            attempts.len()
        );
        let fates: usize = totals.by_fate.values().sum();
        ensure!(
            fates == totals.flows,
            "the fates add up to {fates}, not to {}",
            totals.flows
        );
    }
    Ok(())
}
