//! The time that a flow lost.

use crate::flow::{fate::Fate, model::Flow};

/// Time that a failed or delayed flow cost its client at least, in nanoseconds: for a stall the time spent on
/// retransmissions, for a refusal the time until it arrived, for any other failure the time without an answer up to the
/// end of tracer's patience.
#[must_use]
pub fn lost_ns(flow: &Flow, fate: Fate, patience_ns: u64) -> u64 {
    match fate {
        Fate::Established | Fate::Pending => 0,
        Fate::Stalled => flow.stall_ns().unwrap_or(0),
        Fate::Refused => flow.refused_ns.unwrap_or(0).saturating_sub(flow.start_ns()),
        Fate::Dropped | Fate::Unanswered => flow
            .last_syn_ns()
            .saturating_sub(flow.start_ns())
            .saturating_add(patience_ns),
    }
}
