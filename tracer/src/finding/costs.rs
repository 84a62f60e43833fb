//! The cost of the hooks, as the kernel counts it.

use std::{collections::BTreeMap, time::Duration};

/// The cost of the programs of one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The number of runs, entry and return counted separately.
    pub runs: u64,
    /// Total run time of all of them, in nanoseconds.
    pub run_ns: u64,
}

/// The cost of the hooks between two readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// The time between the readings.
    pub over: Duration,
    /// The cost by name of the hook, for hooks whose programs are loaded.
    pub by_hook: BTreeMap<&'static str, Cost>,
}
