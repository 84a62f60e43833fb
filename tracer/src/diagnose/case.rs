//! The case that the rows look into: one SYN of a failed or delayed flow.

use tracer_common::{hook::Hook, tcp::Part, uapi::verdict};

use super::{blame::Blame, evidence::Evidence, ipvs::decision::Decision, words};
use crate::{
    decode::event::Payload,
    facts::{Facts, NetnsFacts},
    flow::{
        fate::Fate,
        judge::{self, End},
        lost,
        model::{Flow, Step},
        refusal,
    },
};

/// The end of the SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Situation {
    /// This node dropped it, or its answer.
    Dropped,
    /// RST or ICMP unreachable went back to the client.
    Refused,
    /// The SYN went on, and no later SYN was answered.
    Silent,
    /// The SYN went on, and a SYN or SYN-ACK was retransmitted before the handshake continued.
    Late,
    /// The handshake finished at once. Only causes that misdirect are tried ([`super::cause::Cause::misdirects`]).
    Established,
}

/// A failed or delayed flow, and one of its SYNs.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) flow: &'a Flow,
    pub(super) facts: &'a Facts,
    pub(super) situation: Situation,
    /// Index of the SYN, or of the copy that survived in its place.
    pub(super) attempt: usize,
    /// The step at which this node dropped that SYN or its answer.
    pub(super) dropped: Option<&'a Step>,
}

/// The finding of a row.
pub(super) struct Proof {
    /// The explanation: what happened to this flow, and why.
    pub(super) explanation: String,
    /// The facts that prove it.
    pub(super) evidence: Vec<Evidence>,
    /// The rule that did it.
    pub(super) blame: Option<Blame>,
    /// The advice for this flow; `None` for that of the catalogue.
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
    /// The case of one SYN that the client sent; `None` while nothing is wrong with the flow.
    pub(super) fn of(flow: &'a Flow, fate: Fate, facts: &'a Facts, sent: usize) -> Option<Self> {
        let attempt = judge::surviving(flow, sent);
        let case = |situation, attempt, dropped| Self {
            flow,
            facts,
            situation,
            attempt,
            dropped,
        };
        let is_last = flow.sent().next_back() == Some(sent);
        let dropped = dropped_at(flow, attempt);
        Some(match fate {
            Fate::Pending => return None,
            Fate::Established => case(Situation::Established, attempt, None),
            Fate::Refused if let Some(step) = refused_at(flow, sent) => {
                // The refused packet may be a copy of the SYN.
                case(Situation::Refused, step.attempt, dropped_at(flow, step.attempt))
            }
            Fate::Stalled => {
                let lost = match judge::lost_ack(flow).filter(|_| is_last) {
                    None if is_last => judge::lost_answer_to(flow, sent),
                    None => dropped.or_else(|| judge::lost_answer_to(flow, sent)),
                    ack => ack,
                };
                match lost {
                    Some(step) => case(Situation::Dropped, attempt, Some(step)),
                    None if !is_last && refusal::of(flow, sent).is_some() => {
                        case(Situation::Refused, attempt, None)
                    }
                    None => case(Situation::Late, attempt, None),
                }
            }
            _ if dropped.is_some() => case(Situation::Dropped, attempt, dropped),
            _ if !is_last && (flow.is_answered(sent) || flow.is_answered_later(sent)) => {
                case(Situation::Late, attempt, None)
            }
            _ => case(Situation::Silent, attempt, None),
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

    /// Whether all hooks were attached from this SYN on until its end was known.
    pub(super) fn is_watched(&self) -> bool {
        self.flow.is_watched(self.attempt)
    }

    /// Whether IPVS could have handled the SYN without being seen.
    pub(super) fn may_hide_ipvs(&self) -> bool {
        // The hook is missing only where the module is not loaded, or not usable.
        !self.is_watched() && !self.facts.absent.contains(&Hook::IpvsSchedule)
    }

    /// Whether the hooks at rest show how the SYN got to its receiver: by a new entry, not by an old one.
    pub(super) fn is_path_known(&self) -> bool {
        let has = |shows: fn(Hook) -> bool| self.steps().any(|step| shows(step.event.hook));
        has(|hook| hook == Hook::IpvsSchedule || hook == Hook::NftNat || hook.is_iptables_dnat())
            || !self.may_hide_ipvs() && has(Hook::decides_destination)
    }

    /// The steps of the deciding SYN, and of its answer.
    pub(super) fn steps(&self) -> impl DoubleEndedIterator<Item = &'a Step> + use<'a> {
        self.flow.steps_of(self.attempt)
    }

    /// The decision of IPVS about that SYN.
    pub(super) fn decision(&self) -> Decision<'a> {
        Decision::of(self.flow, self.attempt)
    }

    /// The facts about the node's netns.
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

    /// The SYN by its number: `first SYN`.
    pub(super) fn numbered_syn(&self) -> String {
        let number = self.flow.sent().take_while(|&sent| sent <= self.attempt).count();
        format!("{} SYN", words::ordinal(number))
    }

    /// The effect of this node on the SYN.
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

/// Index of the SYN that decided the flow's fate, among the SYNs that the client sent; `lost` has the cost of each. For a stalled
/// flow, the costliest SYN, the first if several cost the same; for a refused flow, the SYN that was refused; otherwise the last.
pub(super) fn deciding(flow: &Flow, fate: Fate, lost: &[u64]) -> usize {
    let sent = match fate {
        Fate::Stalled => return lost::costliest(lost),
        Fate::Refused => flow
            .steps
            .iter()
            // Another SYN may have come before the refusal reached the client.
            .find(|step| Some(step.event.time_ns) == flow.refused_ns)
            .map(|step| flow.sent_of(step.attempt)),
        Fate::Dropped | Fate::Unanswered => last_seen(flow),
        Fate::Established | Fate::Pending => None,
    };
    let last = lost.len().saturating_sub(1);
    sent.and_then(|sent| flow.sent().position(|index| index == sent))
        .unwrap_or(last)
}

/// The last SYN or, if the kernel skipped probes on its path or not all hooks were attached, the last one that was seen in full.
fn last_seen(flow: &Flow) -> Option<usize> {
    let is_seen = |&sent: &usize| !flow.has_skipped(judge::surviving(flow, sent));
    let mut sent = flow.sent().rev();
    let watched = sent.find(|sent| is_seen(sent) && flow.is_watched(*sent));
    watched.or_else(|| flow.sent().rev().find(is_seen))
}

/// The step at which this node dropped one SYN, its answer, or the ACK that its answer led to. A client whose ACK was dropped
/// considers itself connected and sends no more SYNs: only its last one leads there.
fn dropped_at(flow: &Flow, attempt: usize) -> Option<&Step> {
    let is_last = || flow.sent().next_back() == Some(flow.sent_of(attempt));
    match judge::end_of(flow, attempt) {
        End::Dropped(step) => Some(step),
        End::AckLost(step) => is_last().then_some(step),
        End::Answered | End::Open => None,
    }
}

/// The step that refused the client for one of its SYNs.
fn refused_at(flow: &Flow, sent: usize) -> Option<&Step> {
    let decisive = flow
        .steps
        .iter()
        .find(|step| Some(step.event.time_ns) == flow.refused_ns && flow.sent_of(step.attempt) == sent);
    decisive.or_else(|| refusal::of(flow, sent))
}

/// Whether two packets were dropped by the same instruction, on the same path through the same netns.
fn is_same_place(one: &Step, other: &Step) -> bool {
    let place = |step: &Step| match &step.event.payload {
        Payload::Drop(drop) => Some((drop.location, drop.reason)),
        _ => None,
    };
    place(one) == place(other)
        && (one.event.netns, one.event.tuple, one.event.part)
            == (other.event.netns, other.event.tuple, other.event.part)
}

/// The last step that shows a SYN on its path to the backend: it came into another netns, or was translated and handed to a device.
/// A netns that handed it to a device is only a hop. The receiver of an unmodified SYN may answer the client directly, so silence
/// here proves nothing, unless the receiver is a real server of IPVS whose netns was seen.
fn delivery(flow: &Flow, attempt: usize) -> Option<&Step> {
    let mut steps = flow.steps_of(attempt).filter(|step| step.event.part == Part::Syn);
    let last = steps.rfind(|step| match step.event.hook {
        Hook::NetifReceive => !flow.is_on_node(&step.event),
        Hook::DevStartXmit => true,
        _ => false,
    })?;
    let is_translated = last.event.tuple != flow.original;
    let is_at_real_server =
        last.event.hook == Hook::NetifReceive && Decision::of(flow, attempt).sent_with.is_some();
    (is_translated || is_at_real_server).then_some(last)
}
