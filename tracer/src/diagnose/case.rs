//! The case that the rows look into: a failed or delayed flow, seen from the SYN that decides.

use tracer_common::{hook::Hook, tcp::Part, uapi::verdict};

use super::{blame::Blame, evidence::Evidence, ipvs::decision::Decision};
use crate::{
    decode::event::Payload,
    facts::{Facts, NetnsFacts},
    flow::{
        fate::Fate,
        judge::{self, End},
        model::{Flow, Step},
    },
};

/// How the deciding SYN ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Situation {
    /// This node dropped it, or its answer.
    Dropped,
    /// RST or ICMP unreachable went back to the client.
    Refused,
    /// It went on, and the handshake did not finish.
    Silent,
    /// It went on, the client retransmitted, and the handshake finished.
    Late,
    /// The handshake finished at once. Only causes of the wrong place are tried ([`super::cause::Cause::is_wrong_place`]).
    Established,
}

/// A failed or delayed flow, and the SYN that decides why.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) flow: &'a Flow,
    pub(super) facts: &'a Facts,
    pub(super) situation: Situation,
    /// Index of the deciding SYN: the one that was refused, the first one that was dropped if the handshake finished
    /// nevertheless, else the last one.
    pub(super) attempt: usize,
    /// The step at which this node dropped that SYN or its answer.
    pub(super) dropped: Option<&'a Step>,
}

/// What a row found.
pub(super) struct Proof {
    /// What happened and why, about this flow.
    pub(super) explanation: String,
    /// The facts that prove it.
    pub(super) evidence: Vec<Evidence>,
    /// The rule that did it.
    pub(super) blame: Option<Blame>,
    /// What to do about this flow; `None` for what the catalogue says of the cause.
    pub(super) advice: Option<String>,
}

impl Proof {
    pub(super) fn new(explanation: impl Into<String>, evidence: impl IntoIterator<Item = Evidence>) -> Self {
        Self {
            explanation: explanation.into(),
            evidence: evidence.into_iter().collect(),
            blame: None,
            advice: None,
        }
    }

    /// The same with advice for this flow.
    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }
}

impl<'a> Case<'a> {
    /// The case of a flow; `None` if nothing is wrong with it.
    pub(super) fn of(flow: &'a Flow, fate: Fate, facts: &'a Facts) -> Option<Self> {
        let last = last_seen(flow);
        let case = |situation, attempt, dropped| Self {
            flow,
            facts,
            situation,
            attempt,
            dropped,
        };
        let at_end = |situation, attempt| match judge::end_of(flow, attempt) {
            End::Dropped(step) | End::AckLost(step) => case(Situation::Dropped, attempt, Some(step)),
            End::Answered | End::Open => case(situation, attempt, None),
        };
        Some(match fate {
            Fate::Pending => return None,
            Fate::Established => case(
                Situation::Established,
                flow.answered_attempt().unwrap_or(last),
                None,
            ),
            Fate::Dropped | Fate::Unanswered => at_end(Situation::Silent, last),
            Fate::Refused => {
                // Another SYN may have come before the refusal reached the client.
                let refused = flow
                    .steps
                    .iter()
                    .find(|step| Some(step.event.time_ns) == flow.refused_ns);
                Self {
                    situation: Situation::Refused,
                    ..at_end(Situation::Refused, refused.map_or(last, |step| step.attempt))
                }
            }
            Fate::Stalled => {
                let answered = flow.answered_attempt().unwrap_or(flow.attempts.len());
                // A SYN that a copy replaced cost no time.
                let mut before = flow
                    .sent()
                    .filter(|&sent| sent < answered.max(1) && judge::surviving(flow, sent) == sent);
                let lost = before.find_map(|attempt| match judge::end_of(flow, attempt) {
                    End::Dropped(step) => Some((attempt, step)),
                    End::AckLost(_) | End::Answered | End::Open => None,
                });
                let lost = lost
                    .or_else(|| Some((answered, judge::lost_ack(flow)?)))
                    .or_else(|| judge::lost_answer(flow).map(|step| (step.attempt, step)));
                match lost {
                    Some((attempt, step)) => case(Situation::Dropped, attempt, Some(step)),
                    None => case(Situation::Late, 0, None),
                }
            }
        })
    }

    /// The same case seen from each later SYN that was dropped at the same place, before one was answered. Hooks that are
    /// attached only once a packet was dropped show the cause of a later drop. Nothing where IPVS or conntrack returned
    /// the verdict for this SYN: netfilter frees the packets of all of them at one place.
    pub(super) fn later(&self) -> impl Iterator<Item = Self> + use<'a> {
        let this = *self;
        let has_verdict = this
            .steps()
            .any(|step| step.event.hook.gives_own_verdict() && step.verdict.is_some_and(verdict::is_drop));
        let dropped = this
            .dropped
            .filter(|_| this.situation == Situation::Dropped && !has_verdict);
        let end = this.flow.answered_attempt().unwrap_or(this.flow.attempts.len());
        (this.attempt + 1..end).filter_map(move |attempt| match judge::end_of(this.flow, attempt) {
            End::Dropped(step) if is_same_place(step, dropped?) => Some(Self {
                attempt,
                dropped: Some(step),
                ..this
            }),
            _ => None,
        })
    }

    /// The steps of the deciding SYN, and of its answer.
    pub(super) fn steps(&self) -> impl DoubleEndedIterator<Item = &'a Step> + use<'a> {
        self.flow.steps_of(self.attempt)
    }

    /// What IPVS did with that SYN.
    pub(super) fn decision(&self) -> Decision<'a> {
        Decision::of(self.flow, self.attempt)
    }

    /// What is known of the node's netns.
    pub(super) fn netns(&self) -> Option<&'a NetnsFacts> {
        self.facts.netns.get(&self.flow.netns)
    }

    /// The name of the packet that was dropped.
    pub(super) fn dropped_packet(&self) -> &'static str {
        match self.dropped.map(|step| step.event.part) {
            Some(Part::SynAck) => "SYN-ACK",
            Some(Part::Ack) => "client's ACK",
            _ => "SYN",
        }
    }

    /// What this node did to the SYN.
    pub(super) fn refused_or_dropped(&self) -> &'static str {
        match self.situation {
            Situation::Refused => "refused",
            _ => "dropped",
        }
    }

    /// The kernel function that dropped the packet (`nf_hook_slow+0xc3`), if it is known.
    pub(super) fn dropped_in(&self) -> Option<&'a str> {
        match &self.dropped?.event.payload {
            Payload::Drop(drop) => self.facts.symbol(drop.location),
            _ => None,
        }
    }

    /// The kernel's drop reason (`IP_RPFILTER`), where it gives one.
    pub(super) fn drop_reason(&self) -> Option<&'a str> {
        match &self.dropped?.event.payload {
            Payload::Drop(drop) => self.facts.drop_reasons.get(&drop.reason).map(String::as_str),
            _ => None,
        }
    }

    /// The last step that shows the SYN in the backend's netns, or leaving this node towards it.
    pub(super) fn delivery(&self) -> Option<&'a Step> {
        delivery(self.flow, self.attempt)
    }
}

/// The last SYN or, if the kernel skipped probes on its path, the last one that was seen in full.
fn last_seen(flow: &Flow) -> usize {
    let last = judge::last(flow).unwrap_or(0);
    if !flow.has_skipped(last) {
        return last;
    }
    let seen = flow
        .sent()
        .map(|sent| judge::surviving(flow, sent))
        .rfind(|&attempt| !flow.has_skipped(attempt));
    seen.unwrap_or(last)
}

/// Were two packets dropped by the same instruction, on the same path through the same netns?
fn is_same_place(one: &Step, other: &Step) -> bool {
    let place = |step: &Step| match &step.event.payload {
        Payload::Drop(drop) => Some((drop.location, drop.reason)),
        _ => None,
    };
    place(one) == place(other)
        && (one.event.netns, one.event.tuple, one.event.part)
            == (other.event.netns, other.event.tuple, other.event.part)
}

/// The last step that shows a SYN on its path to the backend: in the backend's netns, or translated and handed to a device of
/// the node. Whoever gets an unmodified SYN may answer the client directly: silence here says something only about a real
/// server of IPVS that is seen itself.
fn delivery(flow: &Flow, attempt: usize) -> Option<&Step> {
    let translated = |step: &&Step| step.event.part == Part::Syn && step.event.tuple != flow.original;
    let sent_to_real_server = Decision::of(flow, attempt).sent_with.is_some();
    let arrived = flow
        .steps_of(attempt)
        .filter(|step| sent_to_real_server && step.event.part == Part::Syn || translated(step))
        .rfind(|step| !flow.is_on_node(&step.event) && step.event.hook == Hook::NetifReceive);
    arrived.or_else(|| {
        flow.steps_of(attempt)
            .filter(translated)
            .rfind(|step| step.event.hook == Hook::DevStartXmit)
    })
}
