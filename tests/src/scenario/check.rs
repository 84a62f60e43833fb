//! Consistency of a scenario beyond what serde checks.

mod expectation;
mod kubernetes;
mod rules;
mod step;
mod topology;

use anyhow::{Context, Result, ensure};

use super::{Family, Overlay, Scenario, readdress};
use rules::{require_unique, sysctl};

/// Fails with the first contradiction.
pub(super) fn check(scenario: &Scenario) -> Result<()> {
    ensure!(!scenario.title.trim().is_empty(), "the title is empty");
    ensure!(!scenario.story.trim().is_empty(), "the story is empty");
    ensure!(!scenario.kernels.is_empty(), "`kernels` is empty");
    require_unique("kernel", scenario.kernels.iter())?;
    families(scenario)?;
    scenario.facts.keys().try_for_each(|name| sysctl(name))?;
    topology::check(&scenario.topology)?;
    kubernetes::check(scenario)?;
    for (number, step) in (1..).zip(&scenario.steps) {
        step::check(&scenario.topology, step).with_context(|| format!("step {number}"))?;
    }
    expectation::check(scenario)
}

/// Checks that a scenario for several families has no address of one family in its texts.
fn families(scenario: &Scenario) -> Result<()> {
    ensure!(!scenario.families.is_empty(), "`families` is empty");
    require_unique("family", scenario.families.iter())?;
    ensure!(
        !scenario.families.contains(&Family::Ipv4)
            || scenario
                .connects()
                .all(|connect| connect.extension_headers.is_empty()),
        "IPv4 has no extension headers"
    );
    ensure!(
        !scenario.families.contains(&Family::Ipv6) || scenario.topology.overlay != Overlay::Ipip,
        "IPIP cannot carry IPv6"
    );
    if scenario.families == [Family::Ipv4] {
        return Ok(());
    }
    for text in readdress::texts(&mut scenario.clone()) {
        ensure!(
            !["10.0.0.", "10.244.", "10.96."]
                .iter()
                .any(|start| text.contains(start)),
            "`{}` contains an IPv4 address: write a placeholder such as {{pod-1}} or {{node}}",
            text.trim()
        );
    }
    Ok(())
}
