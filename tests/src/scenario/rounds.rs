//! Steps that a scenario repeats for minutes, to show that tracer's resource use does not grow.

use serde::Deserialize;

use super::{Connect, Step};

/// Steps that are repeated after the other steps, which do not connect. tracer's memory, descriptors and CPU time are measured after the first, the
/// middle and the last round.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounds {
    /// For how long, in minutes.
    pub minutes: u32,
    /// The time from the start of a round to the start of the next one, in seconds. A round that takes longer delays the next.
    pub period_s: u32,
    /// The steps of a round. Each round connects from the ports that follow those of the round before. An expectation of
    /// ports of the first round applies to all rounds, and totals are those of one round.
    pub steps: Vec<Step>,
}

impl Rounds {
    /// The number of rounds: at least three, one for each [`super::Moment`].
    pub(super) fn count(&self) -> u16 {
        let count = self.minutes * 60 / self.period_s.max(1);
        u16::try_from(count).unwrap_or(u16::MAX).max(3)
    }

    /// The steps of a round, counted from 0.
    pub(super) fn steps_of(&self, round: u16) -> Vec<Step> {
        let mut steps = self.steps.clone();
        for step in &mut steps {
            let connects = match step {
                Step::Connect(connect) => std::slice::from_mut(connect),
                Step::Parallel(connects) => connects.as_mut_slice(),
                _ => &mut [],
            };
            for connect in connects {
                connect.source_port = connect
                    .source_port
                    .saturating_add(connect.count.saturating_mul(round));
            }
        }
        steps
    }

    /// Its connects, including those of parallel steps.
    pub(super) fn connects(&self) -> impl Iterator<Item = &Connect> {
        self.steps.iter().flat_map(|step| match step {
            Step::Connect(connect) => std::slice::from_ref(connect),
            Step::Parallel(connects) => connects.as_slice(),
            _ => &[],
        })
    }
}
