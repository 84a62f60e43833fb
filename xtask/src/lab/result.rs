//! The results of scenarios and guests.

use std::time::Duration;

use tracer_lab::expect::Matrix;
use tracer_lab::protocol::Traffic;
use tracer_lab::scenario::KernelName;

/// The result of one scenario on one kernel.
#[derive(Debug)]
pub(crate) struct ScenarioResult {
    /// The kernel.
    pub(crate) kernel: KernelName,
    /// The scenario's name.
    pub(crate) scenario: String,
    /// How long it ran.
    pub(crate) took: Duration,
    /// The connections as the clients saw them.
    pub(crate) traffic: Vec<Traffic>,
    /// Flows by true and reported cause, for scenarios with thousands of them.
    pub(crate) matrix: Option<Matrix>,
    /// Why it failed; empty if it passed.
    pub(crate) failures: Vec<String>,
}

impl ScenarioResult {
    /// Whether it passed.
    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// The results of one guest.
#[derive(Debug)]
pub(crate) struct GuestResult {
    /// The kernel.
    pub(crate) kernel: KernelName,
    /// How long the guest ran, boot included.
    pub(crate) took: Duration,
    /// Its scenarios.
    pub(crate) scenarios: Vec<ScenarioResult>,
}
