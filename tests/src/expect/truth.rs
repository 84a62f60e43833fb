//! What clients lived through, and whether a fate fits it.

use std::fmt;

use crate::protocol::{Outcome, Traffic};
use crate::scenario::Fate;

/// A client that waited this long for its connection lost a SYN or a SYN-ACK, for Linux sends neither again within
/// the first second; one that waited less lost none. Below one second, because its clock runs from the call and
/// tracer's from the packet.
pub(super) const LOST_A_SECOND_MS: f64 = 900.0;

/// How far the time that tracer calls lost may be from what the client waited. The rest of a handshake takes a few
/// milliseconds, and a few tens of them in a virtual machine that is emulated.
pub(super) const STALL_TOLERANCE_MS: f64 = 400.0;

/// A client whose last ACK was thrown away: it believes that it is connected, and waits for the pod's first word.
const FINAL_ACK_DROPPED: &str = "tcp.final-ack-dropped";

/// An old connection in the pod answers the SYN with a bare ACK. A client on Linux answers that with RST and sends its
/// SYN again some milliseconds later: its loss alone is shorter than a second.
const ANSWERED_WITH_ACK: [&str; 3] = [
    "tcp.timewait-refused",
    "tcp.timestamp-rejected",
    "tcp.old-connection",
];

/// What a client waited that lost time for this cause, in milliseconds.
pub(super) fn waited_ms(cause: Option<&str>, truth: &Traffic) -> f64 {
    match truth.answer_ms {
        Some(answer) if cause == Some(FINAL_ACK_DROPPED) => answer,
        _ => truth.ms,
    }
}

/// Whether a client that was told this fate and cause would nod.
pub(super) fn agrees(fate: Fate, cause: Option<&str>, truth: &Traffic) -> bool {
    match (fate, truth.outcome) {
        (Fate::Established, Outcome::Connected) => truth.ms < LOST_A_SECOND_MS,
        (Fate::Stalled, Outcome::Connected) => {
            cause.is_some_and(|cause| ANSWERED_WITH_ACK.contains(&cause))
                || waited_ms(cause, truth) >= LOST_A_SECOND_MS
        }
        (Fate::Dropped | Fate::Refused, Outcome::Connected) => {
            cause == Some(FINAL_ACK_DROPPED) && truth.backend.is_none()
        }
        // The kernel gives the client the same error for "time exceeded", which is no refusal, as for "unreachable".
        (Fate::Refused, Outcome::Refused | Outcome::Unreachable)
        | (Fate::Dropped, Outcome::Timeout | Outcome::Unreachable | Outcome::Aborted | Outcome::Silent)
        | (Fate::Unanswered, Outcome::Timeout | Outcome::Aborted | Outcome::Silent) => true,
        _ => false,
    }
}

/// What a client lived through, as the end of a sentence about it.
pub(super) struct Lived<'a>(pub(super) &'a Traffic);

impl fmt::Display for Lived<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.ms;
        match self.0.outcome {
            Outcome::Connected if self.0.backend.is_none() => {
                write!(
                    f,
                    "was connected after {ms:.0} ms, and never heard a word of the pod"
                )
            }
            Outcome::Connected => write!(f, "was connected after {ms:.0} ms"),
            Outcome::Refused => write!(f, "was refused after {ms:.0} ms"),
            Outcome::Timeout => write!(f, "gave up after {ms:.0} ms"),
            Outcome::Unreachable => write!(f, "was told after {ms:.0} ms that the way is closed"),
            Outcome::Aborted => write!(f, "gave its socket up after {ms:.0} ms"),
            Outcome::Silent => write!(f, "sent SYNs only"),
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
    fn a_short_stall_is_one_only_where_an_ended_connection_refused() {
        let quick = connected(30.0, Some(1.0));
        assert!(!agrees(Fate::Stalled, Some("ipvs.reuse-dropped"), &quick));
        for cause in ANSWERED_WITH_ACK {
            assert!(agrees(Fate::Stalled, Some(cause), &quick));
        }
        assert!(agrees(Fate::Established, None, &quick));
    }

    #[test]
    fn who_is_connected_was_dropped_only_if_the_pod_never_said_a_word() {
        let unheard = connected(30.0, None);
        assert!(agrees(Fate::Dropped, Some(FINAL_ACK_DROPPED), &unheard));
        assert!(agrees(Fate::Refused, Some(FINAL_ACK_DROPPED), &unheard));
        assert!(!agrees(Fate::Dropped, Some("unknown"), &unheard));
        let heard = connected(30.0, Some(1.0));
        assert!(!agrees(Fate::Dropped, Some(FINAL_ACK_DROPPED), &heard));
    }

    #[test]
    fn who_lost_the_last_ack_waited_for_the_first_word() {
        let late = connected(700.0, Some(1000.0));
        assert!(agrees(Fate::Stalled, Some(FINAL_ACK_DROPPED), &late));
        assert!(!agrees(Fate::Stalled, Some("backend.slow"), &late));
        assert!((waited_ms(Some(FINAL_ACK_DROPPED), &late) - 1000.0).abs() < f64::EPSILON);
        assert!((waited_ms(None, &late) - 700.0).abs() < f64::EPSILON);
    }
}
