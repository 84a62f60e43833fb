//! Judges how each SYN of a flow ended, and the fate of the flow.

use tracer_common::{hook::Hook, tcp::Part};

use super::{fate::Fate, model::Flow, refusal, step::Step};
use crate::decode::event::Payload;

/// How one SYN, or its answer, ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'flow> {
    /// A SYN-ACK was seen, and this node did not drop it.
    Answered,
    /// This node dropped the SYN or the SYN-ACK, at this step.
    Dropped(&'flow Step),
    /// This node or the backend's listener dropped the ACK that should have finished the handshake, as this step shows.
    AckLost(&'flow Step),
    /// This node saw nothing that ended it.
    Open,
}

/// The fate of a flow if nothing more happens to it.
#[must_use]
pub fn of(flow: &Flow) -> Fate {
    if flow.established_ns.is_some() {
        return if flow.stall_ns().is_some() {
            Fate::Stalled
        } else {
            Fate::Established
        };
    }
    if flow.refused_ns.is_some() || refusal::gave_up(flow).is_some() {
        return Fate::Refused;
    }
    match last(flow).map(|last| end_of(flow, last)) {
        Some(End::Dropped(_) | End::AckLost(_)) => Fate::Dropped,
        _ => Fate::Unanswered,
    }
}

/// The last SYN that the client sent, or the copy that survived in its place.
#[must_use]
pub fn last(flow: &Flow) -> Option<usize> {
    Some(surviving(flow, flow.sent().next_back()?))
}

/// The SYN itself or, if this node dropped it, the first of its copies that it did not drop.
#[must_use]
pub fn surviving(flow: &Flow, attempt: usize) -> usize {
    let mut copies = flow.copies_of(attempt).peekable();
    if copies.peek().is_none() || !is_dropped(flow, attempt) {
        return attempt;
    }
    copies.find(|&copy| !is_dropped(flow, copy)).unwrap_or(attempt)
}

/// Whether this node dropped the SYN itself.
fn is_dropped(flow: &Flow, attempt: usize) -> bool {
    matches!(end_of(flow, attempt), End::Dropped(step) if step.event.part == Part::Syn)
}

/// The step that shows how the ACK that should have finished the handshake was dropped. A refusal by the listener shows more
/// than the freed packet.
#[must_use]
pub fn lost_ack(flow: &Flow) -> Option<&Step> {
    flow.ack_lost_ns?;
    let acks = || flow.steps.iter().filter(|step| step.event.part == Part::Ack);
    acks().find(|step| refused_by_listener(step)).or_else(|| {
        acks().find(|step| matches!(step.event.payload, Payload::Drop(_)) && flow.is_on_node(&step.event))
    })
}

/// The steps at which this node dropped SYN-ACKs, if fewer left it than the backend sent.
fn lost_answers(flow: &Flow) -> impl Iterator<Item = &Step> {
    let left = flow.answers_sent().count();
    let is_lost = u32::try_from(left).map_or(true, |left| left < flow.synacks);
    let dropped = flow.steps.iter().filter(|step| {
        step.event.part == Part::SynAck
            && matches!(step.event.payload, Payload::Drop(_))
            && step.netns == flow.netns
            && !is_refused_by_client(flow, step)
            && !may_be_copy(flow, step)
    });
    dropped.filter(move |_| is_lost)
}

/// The step at which this node dropped a SYN-ACK that answered this SYN, if fewer left it than the backend sent.
#[must_use]
pub fn lost_answer_to(flow: &Flow, attempt: usize) -> Option<&Step> {
    let sent = flow.sent_of(attempt);
    lost_answers(flow).find(|step| flow.sent_of(step.attempt) == sent)
}

/// The step at which the TCP of a client on the node itself refused a correct SYN-ACK: the client is gone.
#[must_use]
pub fn refused_by_client(flow: &Flow) -> Option<&Step> {
    refusals_by_client(flow).next()
}

fn refusals_by_client(flow: &Flow) -> impl Iterator<Item = &Step> {
    flow.steps.iter().filter(|step| {
        step.event.part == Part::SynAck
            && step.event.hook == Hook::TcpSendReset
            && step.event.tuple == flow.original.reversed()
            && flow.is_on_node(&step.event)
            && matches!(&step.event.payload, Payload::Socket(socket) if socket.sock == 0)
    })
}

/// Whether this packet was freed because the client's own TCP refused it.
fn is_refused_by_client(flow: &Flow, freed: &Step) -> bool {
    refusals_by_client(flow)
        .any(|refused| refused.event.skb == freed.event.skb && refused.event.tuple == freed.event.tuple)
}

/// Whether the listener refused to create a connection from this ACK.
#[must_use]
pub fn refused_by_listener(step: &Step) -> bool {
    step.event.hook == Hook::TcpSynRecvSock && step.verdict == Some(0)
}

/// How one SYN ended.
///
/// A dropped packet is the end only if nothing follows it on the same path: a tap's copy may be dropped while the packet
/// itself goes on.
#[must_use]
pub fn end_of(flow: &Flow, attempt: usize) -> End<'_> {
    let mut end = End::Open;
    for step in flow.steps_of(attempt) {
        match (step.event.part, &step.event.payload) {
            (Part::SynAck, Payload::Drop(_)) if is_refused_by_client(flow, step) => end = End::Answered,
            (Part::Syn | Part::SynAck, Payload::Drop(_)) if may_be_copy(flow, step) => {}
            (Part::Syn | Part::SynAck, Payload::Drop(_)) if step.netns == flow.netns => {
                end = End::Dropped(step);
            }
            (Part::Syn, _) if moves_on(step) => end = End::Open,
            (Part::SynAck, _) if moves_on(step) => end = End::Answered,
            _ => {}
        }
    }
    match lost_ack(flow) {
        Some(step) if flow.established_ns.is_none() && matches!(end, End::Answered) => End::AckLost(step),
        _ => end,
    }
}

/// Whether a freed packet may have been a tap's copy: another buffer than the one that was seen before, while the hooks
/// that would show the packet itself going on were not attached.
fn may_be_copy(flow: &Flow, freed: &Step) -> bool {
    if flow.is_watched(freed.attempt) {
        return false;
    }
    let before = flow
        .steps_of(freed.attempt)
        .filter(|step| !matches!(step.event.payload, Payload::Drop(_)))
        .filter(|step| step.event.part == freed.event.part && step.event.skb != 0);
    let mut has_other = false;
    for step in before {
        if step.event.skb == freed.event.skb {
            return false;
        }
        has_other = true;
    }
    has_other
}

/// Whether this step shows that the packet still exists.
fn moves_on(step: &Step) -> bool {
    step.event.hook.shows_progress()
}
