//! The events of a run besides flows: counters, hooks that change, and the end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{depth::Depth, hook_state::HookState};
use crate::flow::rank::Evicted;

/// Counters of records and flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Time at which the counters were read.
    pub time: Timestamp,
    /// Records that came from the ring buffer.
    pub events: u64,
    /// Packets that were recorded where they arrive from a device (`netif_receive_skb`). Older versions did not count them.
    pub received: Option<u64>,
    /// Records that did not fit into it, by the name of the hook.
    pub lost_by_hook: Vec<(String, u64)>,
    /// How often the kernel skipped probes, by the name of the hook; `None` where it does not count that.
    pub missed: Option<Vec<(String, u64)>>,
    /// What found no room in the kernel half's table of flows, by kind: `flow` or `alias`. Part of what was lost.
    pub refused: Vec<(String, u64)>,
    /// Flows that were evicted from memory before their time.
    pub evicted: Evicted,
}

impl Health {
    /// Records lost at all hooks.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = self.lost_by_hook.iter().map(|(_, lost)| *lost);
        lost.fold(0, u64::saturating_add)
    }
}

/// Hooks whose state changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Time of the report.
    pub time: Timestamp,
    /// Why they changed.
    pub why: String,
    /// The hooks that changed.
    pub hooks: Vec<HookState>,
    /// The number of hooks attached after the change.
    pub attached: usize,
    /// The depth after the change: light or full. Older recordings lack it.
    pub depth: Option<Depth>,
}

/// The end of a run that shut down cleanly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// The moment up to which flows were judged; monotonic nanoseconds.
    pub now_ns: u64,
    /// Records that came from the ring buffer.
    pub events: u64,
    /// Records that were lost.
    pub lost: u64,
    /// The counters of [`Health`] at the end.
    pub received: Option<u64>,
    /// See [`Health`].
    pub lost_by_hook: Vec<(String, u64)>,
    /// See [`Health`].
    pub missed: Option<Vec<(String, u64)>>,
    /// See [`Health`].
    pub refused: Vec<(String, u64)>,
    /// Flows that were evicted from memory before their time.
    pub evicted: Evicted,
}
