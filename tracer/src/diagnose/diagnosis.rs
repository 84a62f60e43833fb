//! The diagnosis of a flow, and whether it counts as a failure.

use std::collections::BTreeMap;

use super::{attempt::Attempt, blame::Blame, cause::Cause, dataplane::Dataplane, evidence::Evidence};
use crate::flow::fate::Fate;

/// The verdict on a flow.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Why; `None` where nothing went wrong or nothing is decided yet.
    pub cause: Option<Cause>,
    /// Why the SYN-ACK was dropped, where `cause` is [`Cause::ReturnDropped`].
    pub inner: Option<Cause>,
    /// The explanation: what happened to this flow and why, in one or two sentences.
    pub explanation: String,
    /// What to do about the cause; `None` without a known cause or advice.
    pub advice: Option<String>,
    /// The facts that prove it.
    pub evidence: Vec<Evidence>,
    /// The rule that dropped or rejected the packet, if one is to blame and known.
    pub blame: Option<Blame>,
    /// The dataplane that did the DNAT; `None` if that was not seen.
    pub dataplane: Option<Dataplane>,
    /// Each SYN that the client sent, in order. The flow's cause is that of one of them.
    pub attempts: Vec<Attempt>,
}

impl Diagnosis {
    /// The time that each cause cost, nanoseconds: one flow may lose time to several.
    #[must_use]
    pub fn lost_by_cause(&self) -> BTreeMap<Cause, u64> {
        let mut lost = BTreeMap::new();
        for attempt in &self.attempts {
            if let Some(cause) = attempt.cause {
                let sum: &mut u64 = lost.entry(cause).or_default();
                *sum = sum.saturating_add(attempt.lost_ns);
            }
        }
        lost
    }

    /// The time that the flow lost, nanoseconds: that of all its SYNs.
    #[must_use]
    pub fn lost_ns(&self) -> u64 {
        let lost = self.attempts.iter().map(|attempt| attempt.lost_ns);
        lost.fold(0, u64::saturating_add)
    }
}

/// Whether the connection failed or was delayed. Decided here alone, from fate and cause: an established connection is a
/// failure if it was misdirected, and a pending one is not a failure yet.
#[must_use]
pub fn is_failure(fate: Fate, cause: Option<Cause>) -> bool {
    match fate {
        Fate::Stalled | Fate::Dropped | Fate::Refused | Fate::Unanswered => true,
        Fate::Established => cause.is_some_and(Cause::misdirects),
        Fate::Pending => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_established_connection_fails_only_if_misdirected() {
        assert!(!is_failure(Fate::Established, None));
        assert!(is_failure(Fate::Established, Some(Cause::ConntrackPinned)));
        assert!(!is_failure(Fate::Established, Some(Cause::BackendSlow)));
    }

    #[test]
    fn a_pending_connection_is_no_failure() {
        for cause in Cause::ALL {
            assert!(!is_failure(Fate::Pending, Some(*cause)));
        }
    }

    #[test]
    fn every_other_fate_is_a_failure_whatever_the_cause() {
        for fate in [Fate::Stalled, Fate::Dropped, Fate::Refused, Fate::Unanswered] {
            assert!(is_failure(fate, None) && is_failure(fate, Some(Cause::Unknown)));
        }
    }
}
