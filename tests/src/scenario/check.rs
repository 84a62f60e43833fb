//! Consistency of a scenario beyond what serde checks.

mod expectation;
mod step;
mod topology;

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use super::{Family, Overlay, Proxy, Scenario, Topology, family};

/// Fails with the first contradiction.
pub(super) fn check(scenario: &Scenario) -> Result<()> {
    ensure!(!scenario.title.trim().is_empty(), "the title is empty");
    ensure!(!scenario.story.trim().is_empty(), "the story is empty");
    ensure!(!scenario.kernels.is_empty(), "`kernels` is empty");
    unique("kernel", scenario.kernels.iter())?;
    families(scenario)?;
    scenario.facts.keys().try_for_each(|name| sysctl(name))?;
    topology::check(&scenario.topology)?;
    for (number, step) in (1..).zip(&scenario.steps) {
        step::check(&scenario.topology, step).with_context(|| format!("step {number}"))?;
    }
    expectation::check(scenario)
}

/// Checks that a scenario for several families has no address of one family in its texts.
fn families(scenario: &Scenario) -> Result<()> {
    ensure!(!scenario.families.is_empty(), "`families` is empty");
    unique("family", scenario.families.iter())?;
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
    for text in family::texts(&mut scenario.clone()) {
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

fn known_pod(topology: &Topology, name: &str) -> Result<()> {
    ensure!(topology.pod(name).is_some(), "no pod `{name}`");
    Ok(())
}

/// Checks that only IPVS mode has weights other than 1.
fn weight(proxy: Proxy, weight: u16) -> Result<()> {
    ensure!(
        proxy == Proxy::Ipvs || weight == 1,
        "weight {weight}: only IPVS mode has weights"
    );
    Ok(())
}

fn known_service(topology: &Topology, name: Option<&str>) -> Result<()> {
    match (topology.service(name), name) {
        (Some(_), _) => Ok(()),
        (None, Some(name)) => bail!("no service `{name}`"),
        (None, None) => bail!("several services exist: name one of them"),
    }
}

fn sysctl(name: &str) -> Result<()> {
    let word = |part: &str| !part.is_empty() && !part.contains(['/', ' ']);
    ensure!(
        name.starts_with("net.") && name.split('.').all(word),
        "`{name}` is not a network sysctl"
    );
    Ok(())
}

fn unique<T: Ord + std::fmt::Debug>(what: &str, all: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for one in all {
        if let Some(twice) = seen.replace(one) {
            bail!("{what} {twice:?} appears twice");
        }
    }
    Ok(())
}
