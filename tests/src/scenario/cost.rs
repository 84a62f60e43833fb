//! A rough estimate of how long a scenario takes, for distributing scenarios over guests.

use std::time::Duration;

use super::{Attempt, Connect, Fate, Scenario, Step};

/// Building a node, starting and stopping tracer, and tearing the node down, in an emulated guest.
const OVERHEAD: Duration = Duration::from_secs(8);

/// Starting a control plane with kube-proxy.
const CONTROL_PLANE: Duration = Duration::from_mins(1);

/// A change of kube-proxy or its input, until its rules are written.
const KUBE_PROXY: Duration = Duration::from_secs(3);

/// A handshake without a retransmission.
const HANDSHAKE: Duration = Duration::from_millis(50);

/// How long tracer waits before it reports the fate of an undecided flow.
const PATIENCE: Duration = Duration::from_secs(3);

impl Scenario {
    /// Estimates how long the scenario takes.
    #[must_use]
    pub const fn estimate(&self) -> Duration {
        self.estimate
    }
}

/// Computes the estimate.
pub(super) fn estimate(scenario: &Scenario) -> Duration {
    let undecided = |fate: Fate| matches!(fate, Fate::Dropped | Fate::Unanswered);
    let expect = &scenario.expect;
    let fates = expect.flows.iter().map(|flow| flow.expected.fate);
    let patience = if fates
        .chain(expect.default.iter().map(|expected| expected.fate))
        .any(undecided)
    {
        PATIENCE
    } else {
        Duration::ZERO
    };
    let attempts = scenario.attempts();
    let mut attempts = attempts.iter().map(|(attempt, _)| attempt);
    let mut next = |connect: &Connect| estimate_connect(scenario, connect, &mut attempts);
    let (control_plane, change) = match scenario.kubernetes {
        Some(_) => (CONTROL_PLANE, KUBE_PROXY),
        None => (Duration::ZERO, Duration::ZERO),
    };
    let steps = scenario.steps.iter().map(|step| match step {
        Step::Connect(connect) => next(connect),
        Step::Parallel(connects) => connects.iter().map(&mut next).max().unwrap_or_default(),
        Step::SleepMs(time) => Duration::from_millis((*time).into()),
        Step::WaitForFates(_) => PATIENCE,
        Step::KubeProxy(_) | Step::AddRealServer(_) | Step::RemoveRealServer(_) => change,
        _ => Duration::ZERO,
    });
    OVERHEAD + control_plane + patience + steps.sum::<Duration>()
}

/// Estimates a connect step: connections expected to fail take as long as the client's timeout. The step's
/// attempts are the next ones of `attempts`.
fn estimate_connect<'a>(
    scenario: &Scenario,
    connect: &Connect,
    attempts: &mut impl Iterator<Item = &'a Attempt>,
) -> Duration {
    let pause = Duration::from_millis(connect.pause_ms.into());
    let own = attempts.take(connect.source_ports().count());
    let all: Duration = own
        .map(
            |attempt| match scenario.expected(attempt).map(|expected| expected.fate) {
                Some(Fate::Dropped | Fate::Unanswered) => Duration::from_millis(connect.timeout_ms.into()),
                Some(Fate::Stalled) => Duration::from_secs(1),
                _ => HANDSHAKE,
            },
        )
        .map(|took| took + pause)
        .sum();
    all / u32::from(connect.at_once.max(1))
}
