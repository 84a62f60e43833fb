//! When not all hooks were attached, and what looks wrong.

use std::collections::BTreeSet;

use super::Engine;
use crate::{
    decode::watch::Gaps,
    flow::suspicion::{Suspicion, Suspicions},
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
