//! What serde cannot see: whether the parts of a scenario fit together.

mod expectation;
mod step;
mod topology;

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use super::{Family, Overlay, Proxy, Scenario, Topology, family};

/// Fails with the first contradiction.
pub(super) fn check(scenario: &Scenario) -> Result<()> {
    ensure!(!scenario.title.trim().is_empty(), "it has no title");
    ensure!(!scenario.story.trim().is_empty(), "it has no story");
    ensure!(!scenario.kernels.is_empty(), "it runs on no kernel");
    unique("kernel", scenario.kernels.iter())?;
    families(scenario)?;
    scenario.facts.keys().try_for_each(|name| sysctl(name))?;
    topology::check(&scenario.topology)?;
    for (number, step) in (1..).zip(&scenario.steps) {
        step::check(&scenario.topology, step).with_context(|| format!("step {number}"))?;
    }
    expectation::check(scenario)
}

/// With several families, texts must not be of one of them.
fn families(scenario: &Scenario) -> Result<()> {
    ensure!(!scenario.families.is_empty(), "it is played with no addresses");
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
        "IPIP carries no IPv6"
    );
    if scenario.families == [Family::Ipv4] {
        return Ok(());
    }
    for text in family::texts(&mut scenario.clone()) {
        ensure!(
            !["10.0.0.", "10.244.", "10.96."]
                .iter()
                .any(|start| text.contains(start)),
            "`{}` names an IPv4 address: write the name of who has it, such as {{pod-1}} or {{node}}",
            text.trim()
        );
    }
    Ok(())
}

fn known_pod(topology: &Topology, name: &str) -> Result<()> {
    ensure!(topology.pod(name).is_some(), "there is no pod `{name}`");
    Ok(())
}

/// Only IPVS knows weights.
fn weight(proxy: Proxy, weight: u16) -> Result<()> {
    ensure!(
        proxy == Proxy::Ipvs || weight == 1,
        "weight {weight}: in this mode a pod is there or it is not"
    );
    Ok(())
}

fn known_service(topology: &Topology, name: Option<&str>) -> Result<()> {
    match (topology.service(name), name) {
        (Some(_), _) => Ok(()),
        (None, Some(name)) => bail!("there is no service `{name}`"),
        (None, None) => bail!("there are several services, so it must say which one"),
    }
}

fn sysctl(name: &str) -> Result<()> {
    let word = |part: &str| !part.is_empty() && !part.contains(['/', ' ']);
    ensure!(
        name.starts_with("net.") && name.split('.').all(word),
        "`{name}` is no sysctl of the network"
    );
    Ok(())
}

fn unique<T: Ord + std::fmt::Debug>(what: &str, all: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for one in all {
        if let Some(twice) = seen.replace(one) {
            bail!("{what} {twice:?} is there twice");
        }
    }
    Ok(())
}
