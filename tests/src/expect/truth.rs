//! The clients' experience, and whether a fate is consistent with it.

use std::fmt;

use crate::protocol::{Outcome, Traffic};
use crate::scenario::Fate;

/// A client that waited this long for its connection lost a SYN or a SYN-ACK, because Linux retransmits
/// neither within the first second; a client that waited less lost none. Below one second, because the
/// client's clock starts at the call and tracer's at the packet.
pub(super) const LOST_A_SECOND_MS: f64 = 900.0;

/// The tolerance between tracer's lost time and the client's wait. The rest of a handshake takes a few
/// milliseconds, and a few tens of milliseconds in an emulated machine.
pub(super) const STALL_TOLERANCE_MS: f64 = 400.0;

/// The cause of a dropped final ACK: the client believes it is connected, and waits for the pod's first
/// bytes.
const FINAL_ACK_DROPPED: &str = "tcp.final-ack-dropped";

/// Causes of a dropped ACK on the node: the client believes it is connected there too.
const ACK_DROPPED: [&str; 2] = [FINAL_ACK_DROPPED, "conntrack.invalid"];

/// Causes where an old connection in the pod answers the SYN with a bare ACK. A Linux client answers that
/// with RST and retransmits its SYN some milliseconds later: its stall may be shorter than a second.
const ANSWERED_WITH_ACK: [&str; 3] = [
    "tcp.timewait-refused",
    "tcp.timestamp-rejected",
    "tcp.old-connection",
];

/// The cause where the node itself connects, and what refuses is sent to its peer.
const REPLY_AS_REQUEST: &str = "ipvs.reply-as-request";

/// How long a client waited because of this cause, in milliseconds.
pub(super) fn waited_ms(cause: Option<&str>, truth: &Traffic) -> f64 {
    match truth.answer_ms {
        Some(answer) if cause == Some(FINAL_ACK_DROPPED) => answer,
        _ => truth.ms,
    }
}

/// Whether this fate and cause are consistent with the client's experience.
pub(super) fn is_consistent(fate: Fate, cause: Option<&str>, truth: &Traffic) -> bool {
    match (fate, truth.outcome) {
        (Fate::Established, Outcome::Connected) => truth.ms < LOST_A_SECOND_MS,
        (Fate::Stalled, Outcome::Connected) => {
            cause.is_some_and(|cause| ANSWERED_WITH_ACK.contains(&cause))
                || waited_ms(cause, truth) >= LOST_A_SECOND_MS
        }
        (Fate::Dropped | Fate::Refused, Outcome::Connected) => {
            cause.is_some_and(|cause| ACK_DROPPED.contains(&cause)) && truth.backend.is_none()
        }
        (Fate::Refused, Outcome::Timeout) => cause == Some(REPLY_AS_REQUEST),
        // The kernel reports "time exceeded", which is not a refusal, to the client with the same error as
        // "unreachable".
        (Fate::Refused, Outcome::Refused | Outcome::Unreachable)
        | (Fate::Dropped, Outcome::Timeout | Outcome::Unreachable | Outcome::Aborted | Outcome::Silent)
        | (Fate::Unanswered, Outcome::Timeout | Outcome::Aborted | Outcome::Silent) => true,
        _ => false,
    }
}

/// A client's experience, as the second half of a sentence about it.
pub(super) struct Experience<'a>(pub(super) &'a Traffic);

impl fmt::Display for Experience<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.ms;
        match self.0.outcome {
            Outcome::Connected if self.0.backend.is_none() => {
                write!(
                    f,
                    "was connected after {ms:.0} ms, but never got an answer from the pod"
                )
            }
            Outcome::Connected => write!(f, "was connected after {ms:.0} ms"),
            Outcome::Refused => write!(f, "was refused after {ms:.0} ms"),
            Outcome::Timeout => write!(f, "timed out after {ms:.0} ms"),
            Outcome::Unreachable => write!(f, "got an ICMP error after {ms:.0} ms"),
            Outcome::Aborted => write!(f, "closed its socket after {ms:.0} ms"),
            Outcome::Silent => write!(f, "only sent SYNs"),
            Outcome::Failed => write!(f, "failed after {ms:.0} ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(ms: f64, answer_ms: Option<f64>) -> Traffic {
        Traffic {
            client: "client-a".into(),
            source_port: 41000,
            to: ([10, 0, 0, 1], 30_080).into(),
            outcome: Outcome::Connected,
            ms,
            answer_ms,
            backend: answer_ms.map(|_| "pod-1".into()),
        }
    }

    #[test]
    fn a_short_stall_needs_an_old_connection_in_the_pod() {
        let quick = connected(30.0, Some(1.0));
        assert!(!is_consistent(Fate::Stalled, Some("ipvs.reuse-dropped"), &quick));
        for cause in ANSWERED_WITH_ACK {
            assert!(is_consistent(Fate::Stalled, Some(cause), &quick));
        }
        assert!(is_consistent(Fate::Established, None, &quick));
    }

    #[test]
    fn a_connected_client_was_dropped_only_if_the_pod_never_answered() {
        let unanswered = connected(30.0, None);
        assert!(is_consistent(Fate::Dropped, Some(FINAL_ACK_DROPPED), &unanswered));
        assert!(is_consistent(Fate::Refused, Some(FINAL_ACK_DROPPED), &unanswered));
        assert!(!is_consistent(Fate::Dropped, Some("unknown"), &unanswered));
        let answered = connected(30.0, Some(1.0));
        assert!(!is_consistent(Fate::Dropped, Some(FINAL_ACK_DROPPED), &answered));
    }

    #[test]
    fn after_a_dropped_final_ack_the_wait_is_for_the_first_byte() {
        let late = connected(700.0, Some(1000.0));
        assert!(is_consistent(Fate::Stalled, Some(FINAL_ACK_DROPPED), &late));
        assert!(!is_consistent(Fate::Stalled, Some("backend.slow"), &late));
        assert!((waited_ms(Some(FINAL_ACK_DROPPED), &late) - 1000.0).abs() < f64::EPSILON);
        assert!((waited_ms(None, &late) - 700.0).abs() < f64::EPSILON);
    }
}
