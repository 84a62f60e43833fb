//! Connections that deviate from a scenario's plan.

use super::truth::{LOST_A_SECOND_MS, is_consistent};
use crate::protocol::{Outcome, Traffic};
use crate::scenario::{Cause, Expected, Fate, Scenario};

/// One in this many of the flows that should connect at once may be slowed by the machine.
pub(super) const SLOWED_ONE_IN: usize = 100;

/// One in this many flows may deviate from the scenario's plan.
pub(super) const UNPLANNED_ONE_IN: usize = 500;

/// How a connection deviates from the scenario's plan. This happens with thousands of connections on an
/// emulated machine, and is not what the scenario tests. tracer's report must still match the client's
/// experience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deviation {
    /// It should have connected at once, and took a second.
    Slowed,
    /// Its fate is not the planned one.
    Unplanned,
}

/// Whether and how a connection deviates from the plan.
pub(super) fn deviation(scenario: &Scenario, expected: &Expected, truth: &Traffic) -> Option<Deviation> {
    if !scenario.expect.matrix || expected.lossy {
        return None;
    }
    let was_to_connect = expected.fate == Fate::Established;
    if was_to_connect && truth.outcome == Outcome::Connected && truth.ms >= LOST_A_SECOND_MS {
        return Some(Deviation::Slowed);
    }
    let cause = expected.cause.map(Cause::word);
    let is_unanswered = was_to_connect && truth.backend.is_none();
    (is_unanswered || !is_consistent(expected.fate, cause, truth)).then_some(Deviation::Unplanned)
}
