//! What the hooks cost, as the kernel counts it.

use std::{collections::BTreeMap, time::Duration};

/// What the programs of one hook did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How often they ran, entry and return counted separately.
    pub runs: u64,
    /// Total run time of all of them, in nanoseconds.
    pub run_ns: u64,
}

/// What the hooks cost between two readings, by the names of the hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// The time between the readings.
    pub over: Duration,
    /// Hooks whose programs are loaded.
    pub by_hook: BTreeMap<&'static str, Cost>,
}
