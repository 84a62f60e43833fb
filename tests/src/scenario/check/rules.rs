//! Checks that several parts of a scenario need.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use super::super::{Proxy, Topology};

pub(super) fn require_pod(topology: &Topology, name: &str) -> Result<()> {
    ensure!(topology.pod(name).is_some(), "no pod `{name}`");
    Ok(())
}

/// Checks that only IPVS mode has weights other than 1.
pub(super) fn weight(proxy: Proxy, weight: u16) -> Result<()> {
    ensure!(
        proxy == Proxy::Ipvs || weight == 1,
        "weight {weight}: only IPVS mode has weights"
    );
    Ok(())
}

pub(super) fn require_service(topology: &Topology, name: Option<&str>) -> Result<()> {
    match (topology.service(name), name) {
        (Some(_), _) => Ok(()),
        (None, Some(name)) => bail!("no service `{name}`"),
        (None, None) => bail!("several services exist: name one of them"),
    }
}

pub(super) fn sysctl(name: &str) -> Result<()> {
    let word = |part: &str| !part.is_empty() && !part.contains(['/', ' ']);
    ensure!(
        name.starts_with("net.") && name.split('.').all(word),
        "`{name}` is not a network sysctl"
    );
    Ok(())
}

pub(super) fn require_unique<T: Ord + std::fmt::Debug>(
    what: &str,
    all: impl Iterator<Item = T>,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for one in all {
        if let Some(repeated) = seen.replace(one) {
            bail!("{what} {repeated:?} appears twice");
        }
    }
    Ok(())
}
