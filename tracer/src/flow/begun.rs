//! The flows that had begun at a given moment.
//!
//! The kernel half counts flows up ([`flow_number`]), so the newest number of each counter is enough.
//! Each further file of a recording starts with them: if the first file is gone, a flow that appears mid-handshake must not
//! look like a new one.

use std::collections::BTreeMap;

use tracer_common::flow_number;

/// The newest flow of each counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun(BTreeMap<u16, u64>);

impl Begun {
    /// Adds a flow with this number.
    pub fn add(&mut self, flow: u64) {
        let newest = self.0.entry(flow_number::counter(flow)).or_default();
        *newest = flow.max(*newest);
    }

    /// Whether this flow had begun.
    #[must_use]
    pub fn has(&self, flow: u64) -> bool {
        self.0
            .get(&flow_number::counter(flow))
            .is_some_and(|&newest| flow <= newest)
    }

    /// The newest flow of each counter.
    pub fn newest(&self) -> impl Iterator<Item = u64> {
        self.0.values().copied()
    }

    /// Whether no flow had begun.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<u64> for Begun {
    fn extend<T: IntoIterator<Item = u64>>(&mut self, flows: T) {
        flows.into_iter().for_each(|flow| self.add(flow));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_counts_by_itself() {
        let mut begun = Begun::default();
        assert!(!begun.has(1) && begun.is_empty());
        begun.extend([5, 3, (2 << 48) | 1]);
        assert!(begun.has(5) && begun.has(4) && !begun.has(6));
        assert!(begun.has((2 << 48) | 1) && !begun.has((2 << 48) | 2));
        assert!(!begun.has((1 << 48) | 1));
        assert_eq!(begun.newest().collect::<Vec<_>>(), [5, (2 << 48) | 1]);
    }
}
