//! Which flows had begun by some moment.
//!
//! The kernel half numbers the flows that each CPU begins, with the CPU in the upper 16 bits, so one number for each CPU
//! describes all of them. A recording whose first files are missing needs that: a flow that is met mid-handshake must not be
//! taken for a new one.

use std::collections::BTreeMap;

/// The newest flow that each CPU had begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun(BTreeMap<u16, u64>);

impl Begun {
    /// Adds a flow with this number.
    pub fn add(&mut self, flow: u64) {
        let newest = self.0.entry(cpu(flow)).or_default();
        *newest = flow.max(*newest);
    }

    /// Had this flow begun?
    #[must_use]
    pub fn has(&self, flow: u64) -> bool {
        self.0.get(&cpu(flow)).is_some_and(|&newest| flow <= newest)
    }

    /// The newest flow of each CPU.
    pub fn newest(&self) -> impl Iterator<Item = u64> {
        self.0.values().copied()
    }

    /// Is none known?
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

fn cpu(flow: u64) -> u16 {
    u16::try_from(flow >> 48).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_counts_for_itself() {
        let mut begun = Begun::default();
        assert!(!begun.has(1) && begun.is_empty());
        begun.extend([5, 3, (2 << 48) | 1]);
        assert!(begun.has(5) && begun.has(4) && !begun.has(6));
        assert!(begun.has((2 << 48) | 1) && !begun.has((2 << 48) | 2));
        assert!(!begun.has((1 << 48) | 1));
        assert_eq!(begun.newest().collect::<Vec<_>>(), [5, (2 << 48) | 1]);
    }
}
