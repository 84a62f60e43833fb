//! Which flows the kernel half has to follow further.

use std::collections::HashSet;

use super::Engine;
use crate::flow::rank::Rank;

/// How long a flow that was silent is still followed where the kernel half has little room: the retransmissions of a SYN-ACK are
/// at most 32 s apart until a backend gives up (`tcp_synack_retries`, 5).
const FOLLOWED_NS: u64 = 40_000_000_000;

impl Engine {
    /// The kernel half's numbers of the flows whose packets are wanted at `now_ns` however full its table is: those that were
    /// answered or retransmitted, and are neither over nor silent for long. A flow with a single unanswered SYN that it gives up
    /// begins again there with the next SYN.
    #[must_use]
    pub fn followed(&self, now_ns: u64) -> HashSet<u64> {
        let mut out = HashSet::new();
        for (&number, tracked) in &self.flows {
            let last = tracked.flow.steps.last().map_or(0, |step| step.event.time_ns);
            if tracked.rank != Rank::OneSyn && !tracked.closed && last.saturating_add(FOLLOWED_NS) >= now_ns {
                out.insert(number);
                out.extend(&tracked.other_numbers);
            }
        }
        out
    }
}
