//! Ranges of ports that a rule matches.

use serde::{Deserialize, Serialize};

/// Ranges of ports, each with its first and last port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRanges(Vec<(u16, u16)>);

impl PortRanges {
    /// Adds a range.
    pub fn add(&mut self, first: u16, last: u16) {
        self.0.push((first, last));
    }

    /// Whether a port is in one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether they restrict the port. A range from the first port to the last one does not.
    #[must_use]
    pub fn names_ports(&self) -> bool {
        !self.is_empty() && !self.0.iter().any(|&(first, last)| first <= 1 && last == u16::MAX)
    }
}

impl FromIterator<(u16, u16)> for PortRanges {
    fn from_iter<T: IntoIterator<Item = (u16, u16)>>(ranges: T) -> Self {
        Self(ranges.into_iter().collect())
    }
}
