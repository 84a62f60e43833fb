//! Which SYNs were watched by all hooks, and what looks wrong.

use std::collections::BTreeSet;

use super::{Engine, Gaps, decided_ns};
use crate::flow::{
    model::Flow,
    suspicion::{Suspicion, Suspicions},
};

impl Engine {
    /// Sets the periods that were not watched in full. Flows are judged by the ones that were set last.
    pub fn set_gaps(&mut self, gaps: &Gaps) {
        if self.gaps != *gaps {
            self.gaps.clone_from(gaps);
        }
    }

    /// From now on, collects what looks wrong for [`Engine::take_suspicions`].
    pub fn keep_suspicions(&mut self) {
        self.suspicions.get_or_insert_with(Suspicions::default);
    }

    /// What looks wrong at `now_ns` (monotonic nanoseconds), and did not at the last call.
    pub fn take_suspicions(&mut self, now_ns: u64) -> BTreeSet<Suspicion> {
        let flows = &self.flows;
        self.suspicions.as_mut().map_or_else(BTreeSet::new, |suspicions| {
            suspicions.take(now_ns, |number| Some(&flows.get(&number)?.flow))
        })
    }
}

/// Marks the SYNs of a flow during which not all hooks were attached: from each to the next, and from the last until the
/// fate is known.
pub(super) fn mark(flow: &mut Flow, gaps: &Gaps) {
    if gaps.is_empty() {
        return;
    }
    let end = decided_ns(flow).unwrap_or_else(|| flow.last_syn_ns().saturating_add(flow.patience_ns));
    for index in 0..flow.attempts.len() {
        let begin = flow.attempts[index].time_ns;
        let until = flow.attempts.get(index + 1).map_or(end, |next| next.time_ns);
        flow.attempts[index].is_watched = gaps.is_watched(begin, until.max(begin));
    }
}
