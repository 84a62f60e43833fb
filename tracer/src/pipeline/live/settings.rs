//! What users set for a live run.

use std::time::Duration;

use crate::{finding::depth::Depth, flow::engine::Limits};

/// What a live run does with the flows that it traces.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A flow without progress is reported this long after its last SYN.
    pub patience: Duration,
    /// Limits on the flows kept.
    pub limits: Limits,
    /// How much is watched.
    pub depth: Depth,
    /// How long everything is watched after something looked wrong, at depth auto.
    pub deep_for: Duration,
}
