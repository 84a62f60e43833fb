//! The facts that may have changed, so that a recorder need not compare all of them.

use std::collections::BTreeSet;

use crate::facts::Facts;

/// The groups of facts that may have changed since the last look at them.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the groups are independent of each other"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedFacts {
    /// Names of kernel functions.
    pub symbols: bool,
    /// Routes.
    pub routes: bool,
    /// Backends to which no rule translates.
    pub unreachable: bool,
    /// Rules that lead to a backend.
    pub nat_rules: bool,
    /// Processes in network namespaces.
    pub pids: bool,
    /// Since when the facts of a network namespace hold.
    pub netns_since: bool,
    /// Hooks that cannot show anything.
    pub absent: bool,
    /// When the hooks that wait for suspicion were attached.
    pub gaps: bool,
    /// When records were last lost.
    pub lost: bool,
    /// The state of the node.
    pub node: bool,
    /// Network namespaces, by inode number.
    pub netns: BTreeSet<u32>,
}

impl ChangedFacts {
    /// Every group, and every network namespace that `facts` has.
    #[must_use]
    pub fn all(facts: &Facts) -> Self {
        Self {
            symbols: true,
            routes: true,
            unreachable: true,
            nat_rules: true,
            pids: true,
            netns_since: true,
            absent: true,
            gaps: true,
            lost: true,
            node: true,
            netns: facts.netns.keys().copied().collect(),
        }
    }
}
