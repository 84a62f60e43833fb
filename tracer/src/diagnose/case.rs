//! What the rows of the catalogue are asked about: a flow that went wrong, seen from the SYN that tells.

use tracer_common::{hook::Hook, tcp::Part};

use super::{evidence::Evidence, ipvs::decision::Decision};
use crate::{
    decode::event::Payload,
    facts::{Facts, NetnsFacts},
    flow::{
        fate::Fate,
        judge::{self, End},
        model::{Flow, Step},
    },
};

const NF_DROP: i32 = 0;

/// How the SYN that tells ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Situation {
    /// This node discarded it, or its answer.
    Dropped,
    /// RST or ICMP unreachable went back to the client.
    Refused,
    /// It went on, and the handshake did not end.
    Silent,
    /// It went on, the client sent another one, and the handshake ended.
    Late,
}

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) flow: &'a Flow,
    pub(super) facts: &'a Facts,
    pub(super) situation: Situation,
    /// Index of the SYN that tells: the one that was refused, the first one that was discarded if the handshake ended
    /// in spite of it, else the last one.
    pub(super) attempt: usize,
    /// The step at which this node discarded that SYN or its answer.
    pub(super) discarded: Option<&'a Step>,
}

/// What a row found: words about this flow, and what proves them.
pub(super) struct Proof {
    pub(super) explanation: String,
    pub(super) evidence: Vec<Evidence>,
}

impl<'a> Case<'a> {
    /// The case that a flow makes; `None` if nothing is wrong with it.
    pub(super) fn of(flow: &'a Flow, fate: Fate, facts: &'a Facts) -> Option<Self> {
        let last = last_seen(flow);
        let case = |situation, attempt, discarded| Self {
            flow,
            facts,
            situation,
            attempt,
            discarded,
        };
        let at_end = |situation, attempt| match judge::end_of(flow, attempt) {
            End::Dropped(step) | End::AckLost(step) => case(Situation::Dropped, attempt, Some(step)),
            End::Answered | End::Open => case(situation, attempt, None),
        };
        Some(match fate {
            Fate::Established | Fate::Pending => return None,
            Fate::Dropped | Fate::Unanswered => at_end(Situation::Silent, last),
            Fate::Refused => {
                // Another SYN may have come before the client heard of the refusal.
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

    /// The same case seen from each later SYN that was discarded at the same place, before one was answered: what
    /// tracer looks for only once a packet was discarded, a later SYN shows. Not where IPVS or conntrack was seen to
    /// say that this SYN be dropped: netfilter discards at one place for all of them.
    pub(super) fn again(&self) -> impl Iterator<Item = Self> + use<'a> {
        let this = *self;
        let told = this.steps().any(|step| {
            step.verdict == Some(NF_DROP)
                && (step.event.hook.is_ipvs_request() || step.event.hook == Hook::CtConfirm)
        });
        let discarded = this
            .discarded
            .filter(|_| this.situation == Situation::Dropped && !told);
        let end = this.flow.answered_attempt().unwrap_or(this.flow.attempts.len());
        (this.attempt + 1..end).filter_map(move |attempt| match judge::end_of(this.flow, attempt) {
            End::Dropped(step) if is_same_place(step, discarded?) => Some(Self {
                attempt,
                discarded: Some(step),
                ..this
            }),
            _ => None,
        })
    }

    /// The steps of the SYN that tells, and of what answered it.
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

    /// The packet that was discarded, in words.
    pub(super) fn discarded_packet(&self) -> &'static str {
        match self.discarded.map(|step| step.event.part) {
            Some(Part::SynAck) => "answer",
            Some(Part::Ack) => "client's ACK",
            _ => "SYN",
        }
    }

    /// The kernel function that discarded the packet (`nf_hook_slow+0xc3`), if it is known.
    pub(super) fn discarded_in(&self) -> Option<&'a str> {
        match &self.discarded?.event.payload {
            Payload::Drop(drop) => self.facts.symbol(drop.location),
            _ => None,
        }
    }

    /// The kernel's own word for why it discarded the packet (`IP_RPFILTER`), where it has one.
    pub(super) fn drop_reason(&self) -> Option<&'a str> {
        match &self.discarded?.event.payload {
            Payload::Drop(drop) => self.facts.drop_reasons.get(&drop.reason).map(String::as_str),
            _ => None,
        }
    }

    /// Did the SYN reach the backend's netns, or leave this node towards it: the last step that shows so.
    pub(super) fn delivery(&self) -> Option<&'a Step> {
        delivery(self.flow, self.attempt)
    }
}

/// The last SYN or, if the kernel skipped probes on its way, the last one of which all was seen.
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

/// Were two packets discarded by the same instruction, on the same way through the same netns?
fn is_same_place(one: &Step, other: &Step) -> bool {
    let place = |step: &Step| match &step.event.payload {
        Payload::Drop(drop) => Some((drop.location, drop.reason)),
        _ => None,
    };
    place(one) == place(other)
        && (one.event.netns, one.event.tuple, one.event.part)
            == (other.event.netns, other.event.tuple, other.event.part)
}

/// The last step that shows a SYN on its way to the backend: in the backend's netns, or translated and handed to a device
/// of the node. Who gets the SYN as the client sent it may answer the client by another way: that nothing came back here
/// says something only of a real server of IPVS that is seen itself.
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
