//! Flows that are not decided yet.

use super::Engine;
use crate::flow::{gaps, model::Flow};

/// How long after a SYN [`Engine::take_pending`] hands out a flow whose fate is not known.
const PENDING_NS: u64 = 250_000_000;

impl Engine {
    /// Hands out each flow that had a SYN shortly before `now_ns` and whose fate is not known yet. [`Engine::poll`] hands it
    /// out again later.
    pub fn take_pending(&mut self, now_ns: u64, mut hand_out: impl FnMut(&Flow)) {
        let Some(pending) = &mut self.pending else {
            return;
        };
        while let Some(&(time_ns, number)) = pending.front()
            && time_ns.saturating_add(PENDING_NS) <= now_ns
        {
            pending.pop_front();
            if let Some(tracked) = self.flows.get_mut(&number)
                && tracked.reported.is_none()
                && tracked.flow.decided_ns().is_none()
            {
                gaps::mark(&mut tracked.flow, &self.gaps);
                hand_out(&tracked.flow);
            }
        }
    }
}
