//! Which of the facts may be others than before, so that a recording need not compare all of them.

use std::collections::BTreeSet;

use crate::facts::Facts;

/// See the module.
#[expect(
    clippy::struct_excessive_bools,
    reason = "groups of facts that have nothing to do with each other"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Names of kernel functions.
    pub symbols: bool,
    /// Routes.
    pub routes: bool,
    /// Backends to which no rule led.
    pub unreachable: bool,
    /// Hooks that show nothing.
    pub absent: bool,
    /// When records were lost.
    pub lost: bool,
    /// Facts of these network namespaces.
    pub netns: BTreeSet<u32>,
}

impl Changed {
    /// Everything that there is.
    #[must_use]
    pub fn all(facts: &Facts) -> Self {
        Self {
            symbols: true,
            routes: true,
            unreachable: true,
            absent: true,
            lost: true,
            netns: facts.netns.keys().copied().collect(),
        }
    }
}
