//! How long a scenario will take, roughly: enough to share the work out between guests.

use std::time::Duration;

use super::{Connect, Fate, Scenario, Step};

/// Building a node, starting and ending a tracer, and taking the node down, in an emulated guest.
const OVERHEAD: Duration = Duration::from_secs(8);

/// A connection that is made at once.
const HANDSHAKE: Duration = Duration::from_millis(50);

/// What tracer waits before it tells the fate of a flow that nothing has decided.
const PATIENCE: Duration = Duration::from_secs(3);

impl Scenario {
    /// An estimate of the time that it takes to play it.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        let undecided = |fate: Fate| matches!(fate, Fate::Dropped | Fate::Unanswered);
        let fates = self.expect.flows.iter().map(|flow| flow.expected.fate);
        let patience = if fates
            .chain(self.expect.default.iter().map(|expected| expected.fate))
            .any(undecided)
        {
            PATIENCE
        } else {
            Duration::ZERO
        };
        let steps: Duration = self.steps.iter().map(|step| self.estimate_of(step)).sum();
        OVERHEAD + patience + steps
    }

    fn estimate_of(&self, step: &Step) -> Duration {
        match step {
            Step::Connect(connect) => self.estimate_of_connect(connect),
            Step::Parallel(connects) => {
                let each = connects.iter().map(|connect| self.estimate_of_connect(connect));
                each.max().unwrap_or_default()
            }
            Step::SleepMs(time) => Duration::from_millis((*time).into()),
            Step::FatesTold(_) => PATIENCE,
            _ => Duration::ZERO,
        }
    }

    /// A step's connects that are not expected to be made take as long as their client waits for them.
    fn estimate_of_connect(&self, connect: &Connect) -> Duration {
        let pause = Duration::from_millis(connect.pause_ms.into());
        let attempts = self.attempts();
        let own = attempts.iter().filter(|(_, of)| std::ptr::eq(*of, connect));
        own.map(
            |(attempt, _)| match self.expected(attempt).map(|expected| expected.fate) {
                Some(Fate::Dropped | Fate::Unanswered) => Duration::from_millis(connect.timeout_ms.into()),
                Some(Fate::Stalled) => Duration::from_secs(1),
                _ => HANDSHAKE,
            },
        )
        .map(|took| took + pause)
        .sum()
    }
}
