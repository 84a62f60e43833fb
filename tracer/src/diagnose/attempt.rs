//! The outcome of each SYN of a flow.

use super::{
    case,
    cause::Cause,
    explain::{self, Found},
};
use crate::{
    facts::Facts,
    flow::{fate::Fate, lost, model::Flow},
};

/// The most SYNs of a flow that are diagnosed. Linux sends 7 by default; more than this is a loop or an attack.
const MOST: usize = 64;

/// One SYN that the client sent, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1.
    pub number: usize,
    /// Time at which it was first seen, nanoseconds after the flow's first SYN.
    pub t_ns: u64,
    /// Why it did not finish the handshake at once; `None` if it did, or if that is not decided yet.
    pub cause: Option<Cause>,
    /// Why its SYN-ACK was dropped, where `cause` is [`Cause::ReturnDropped`].
    pub inner: Option<Cause>,
    /// The explanation: what happened to it.
    pub explanation: String,
    /// The time that it cost the client, nanoseconds.
    pub lost_ns: u64,
}

/// Diagnoses each SYN that the client sent. Also returns the finding for the SYN that decides the flow's cause.
pub(super) fn all(flow: &Flow, fate: Fate, facts: &Facts) -> (Vec<Attempt>, Option<Found>) {
    let lost = lost::by_syn(flow, fate);
    let deciding = case::deciding(flow, fate, &lost);
    let mut decisive = None;
    let attempts = flow
        .sent()
        .zip(&lost)
        .enumerate()
        .map(|(index, (sent, &lost_ns))| {
            let attempt = Attempt {
                number: index + 1,
                t_ns: flow.attempts[sent].time_ns.saturating_sub(flow.start_ns()),
                cause: None,
                inner: None,
                explanation: String::new(),
                lost_ns,
            };
            let has_finished = fate == Fate::Stalled && lost_ns == 0 && index + 1 == lost.len();
            if has_finished && index != deciding {
                let explanation = "It was answered, and the handshake finished.".to_owned();
                return Attempt {
                    explanation,
                    ..attempt
                };
            }
            if index >= MOST && index != deciding {
                return Attempt {
                    cause: Some(Cause::Unknown),
                    explanation: format!("Not diagnosed: the flow has more than {MOST} SYNs."),
                    ..attempt
                };
            }
            let Some(found) = explain::of_syn(flow, fate, facts, sent) else {
                let explanation = match fate {
                    Fate::Established => "The handshake finished without a retransmission.",
                    _ => "Not decided yet.",
                };
                return Attempt {
                    explanation: explanation.to_owned(),
                    ..attempt
                };
            };
            let attempt = Attempt {
                cause: Some(found.cause),
                inner: found.inner,
                explanation: found.proof.explanation.clone(),
                ..attempt
            };
            if index == deciding {
                decisive = Some(found);
            }
            attempt
        });
    (attempts.collect(), decisive)
}
