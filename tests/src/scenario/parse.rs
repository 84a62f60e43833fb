//! Parsing a scenario file.

use anyhow::{Context, Result};

use super::{Scenario, check, cost};

impl Scenario {
    /// Parses and checks a scenario.
    pub fn from_toml(text: &str) -> Result<Self> {
        let mut scenario: Self = toml::from_str(text)?;
        scenario.topology.fill_in();
        scenario.expand_rounds();
        check::check(&scenario).context("inconsistent scenario")?;
        scenario.estimate = cost::estimate(&scenario);
        Ok(scenario)
    }
}
