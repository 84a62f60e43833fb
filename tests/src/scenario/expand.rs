//! Replaces the rounds of a scenario by their steps.

use super::{Moment, Scenario, Step};

impl Scenario {
    /// Appends the rounds to the steps, and multiplies what is expected of their ports.
    pub(super) fn expand_rounds(&mut self) {
        let Some(rounds) = self.rounds.take() else {
            return;
        };
        let count = rounds.count();
        for round in 0..count {
            self.steps.push(Step::NextRound(rounds.period_s));
            self.steps.extend(rounds.steps_of(round));
            let moment = match round {
                0 => Some(Moment::Start),
                _ if round == count - 1 => Some(Moment::End),
                _ if round == count / 2 => Some(Moment::Middle),
                _ => None,
            };
            self.steps.extend(moment.map(Step::Measure));
        }
        for flow in &mut self.expect.flows {
            let mut of_rounds = rounds.connects();
            if of_rounds
                .any(|connect| (&connect.client, connect.source_port) == (&flow.client, flow.source_port))
            {
                flow.count = flow.count.saturating_mul(count);
            }
        }
        if let Some(totals) = &mut self.expect.totals {
            let counts = totals.by_fate.values_mut().chain(totals.by_cause.values_mut());
            for number in counts.chain([&mut totals.flows]) {
                *number = number.saturating_mul(usize::from(count));
            }
        }
        self.limit_s = self.limit_s.saturating_add(rounds.minutes.saturating_mul(120));
    }
}
