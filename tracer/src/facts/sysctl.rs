//! The sysctls of a network namespace that can decide what happens to a SYN.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values by name, as printed by `sysctl`. A setting that this kernel lacks is absent.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctls {
    values: BTreeMap<String, String>,
}

impl FromIterator<(String, String)> for Sysctls {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(settings: T) -> Self {
        Self {
            values: settings.into_iter().collect(),
        }
    }
}

impl Sysctls {
    /// The value of a setting, for example `net.ipv4.vs.conn_reuse_mode`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of a numeric setting.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// All settings, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}
