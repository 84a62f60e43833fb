//! Adds an event to its flow: as a new attempt, or as a step of one.

use tracer_common::{
    hook::Hook,
    record::{Phase, time_wait},
    tcp::Part,
};

use super::{
    judge,
    model::{Flow, MOST_ATTEMPTS},
    open, refusal,
    step::{Attempt, Place, RETRANSMIT_NS, Step},
};
use crate::decode::event::{Event, Payload};

/// How long after the fate is known records of the same moment may still arrive from other CPUs, in nanoseconds.
pub(super) const SETTLE_NS: u64 = 50_000_000;

/// Whether a client's SYN can first be seen here: at a device or, for a client on the node itself, at its socket or IPVS.
pub(super) fn is_arrival(event: &Event) -> bool {
    event.phase == Phase::Entry && event.outer.is_none() && event.hook.begins_flow()
}

/// Whether this SYN-ACK begins a flow: IPVS handles it as a request, and the node itself sent the SYN that it answers.
pub(super) fn is_taken_answer(event: &Event) -> bool {
    event.part == Part::SynAck && matches!(event.payload, Payload::OwnConnection(_))
}

/// Adds an event to its flow. A SYN where the flow's SYNs come in is a new attempt; everything else belongs to one.
pub(super) fn add(flow: &mut Flow, mut event: Event) {
    if flow.is_own_connection {
        event.part = part_of_own_connection(&event);
    }
    if let Payload::Skipped(_) = event.payload {
        flow.skip(&event);
        return;
    }
    if let Payload::Mark(_) | Payload::TcpHeader(_) = event.payload {
        flow.keep_detail(event);
        return;
    }
    let is_original = event.tuple == flow.original;
    if is_original && event.part == Part::Syn && !flow.has_come_in(&event) {
        return;
    }
    if event.part == Part::Syn && is_original && is_attempt(flow, &event) {
        if flow.attempts.len() >= MOST_ATTEMPTS {
            flow.steps_left_out += 1;
            return;
        }
        if flow.established_ns.is_some() {
            flow.over_ns.get_or_insert(event.time_ns);
        }
        flow.attempts.push(Attempt {
            time_ns: event.time_ns,
            skb: event.skb,
            is_copy: is_copy(flow, &event),
            is_watched: true,
        });
        if flow.syn_origin.is_at(Hook::TcpConnect) {
            flow.reassign_recent_steps(event.time_ns);
        }
    }
    if event.part == Part::SynAck && event.hook.is_device() {
        let place = Place::of(&event);
        if *flow.synack_origin.get_or_insert(place) == place {
            flow.synacks += 1;
        }
    }
    acknowledge(flow, &event);
    if refusal::refuses(flow, &event) && flow.refused_ns.is_none() && flow.established_ns.is_none() {
        flow.refused_ns = Some(event.time_ns);
    }
    let verdict = (event.phase == Phase::Return).then_some(event.verdict);
    flow.may_be_held |= open::holds(&event, verdict);
    let attempt = attempt_of(flow, &event);
    flow.push(event, attempt);
}

/// The packet's part in the request that IPVS sees. For a connection that the node itself opened, the SYN-ACK is the request,
/// unless it reached the socket after all.
fn part_of_own_connection(event: &Event) -> Part {
    match event.part {
        Part::SynAck if event.hook != Hook::TcpFinishConnect => Part::Syn,
        Part::Syn => Part::Other,
        part => part,
    }
}

/// Whether this SYN, with the tuple that the client sent, was seen where the flow's first one was seen.
fn is_attempt(flow: &Flow, event: &Event) -> bool {
    if flow.is_own_connection {
        return is_new_answer(flow, event);
    }
    let place = Place::of(event);
    if flow.syn_origin.is_at(Hook::TcpConnect) {
        return event.hook == Hook::TcpConnect || is_retransmission(flow, event);
    }
    is_arrival(event) && place == flow.syn_origin
}

/// Whether this SYN-ACK is seen for the first time. The first one appears where IPVS decides about it, the others where they
/// come in.
fn is_new_answer(flow: &Flow, event: &Event) -> bool {
    let Some(last) = flow.attempts.last() else {
        return true;
    };
    let is_same = last.skb == event.skb && event.time_ns.saturating_sub(last.time_ns) < RETRANSMIT_NS;
    is_arrival(event) && !is_same
}

/// Whether a client on the node retransmits its SYN. The tracepoint fires afterwards and, before 6.15, not if the SYN was
/// dropped on output (`__tcp_retransmit_skb`, `net/ipv4/tcp_output.c`); then the hooks on the output path show it.
fn is_retransmission(flow: &Flow, event: &Event) -> bool {
    let is_output = event.phase == Phase::Entry && event.hook.is_output_path();
    (event.hook == Hook::TcpRetransmit || is_output)
        && event.time_ns >= flow.last_syn_ns().saturating_add(RETRANSMIT_NS)
}

/// Whether this SYN is a copy that the network made: it arrives too soon after the last one, or after the client's ACK. A
/// client that got an error may retry at once, though.
fn is_copy(flow: &Flow, syn: &Event) -> bool {
    let Some(index) = flow.sent().next_back() else {
        return false;
    };
    let last = &flow.attempts[index];
    let soon = syn.time_ns.saturating_sub(last.time_ns) < RETRANSMIT_NS;
    let may_retry_at_once = || {
        flow.steps
            .iter()
            .any(|step| step.event.time_ns >= last.time_ns && reports_an_error_to_the_client(step))
            || met_a_connection(flow, index)
    };
    // The tracepoint saw a client on this machine send it.
    syn.hook != Hook::TcpRetransmit && (flow.established_ns.is_some() || soon && !may_retry_at_once())
}

/// Whether this step sends the client something other than a SYN-ACK: an ICMP error, a RST, or the bare ACK of an old
/// connection.
fn reports_an_error_to_the_client(step: &Step) -> bool {
    matches!(step.event.payload, Payload::Icmp(_))
        || step.event.part == Part::Rst
        || step.event.hook == Hook::TcpTimewait && step.verdict != Some(time_wait::SYN)
}

/// Whether TCP dropped this SYN before it reached a listener. It then met a connection that is still open. That socket
/// answers with a bare ACK, the client's RST ends the connection, and Linux retransmits its SYN at once. Inside TCP a packet
/// has no device.
fn met_a_connection(flow: &Flow, attempt: usize) -> bool {
    let mut dropped = false;
    for step in flow.steps_of(attempt).filter(|step| step.event.part == Part::Syn) {
        match (&step.event.payload, step.event.hook) {
            (Payload::Drop(_), _) if step.event.netns == 0 => dropped = true,
            (_, hook) if hook.receives_syn() => return false,
            _ => {}
        }
    }
    dropped
}

/// Updates the flow with what the event shows about the ACK that finishes the handshake: it came in, was accepted, or was
/// lost in between.
fn acknowledge(flow: &mut Flow, event: &Event) {
    let is_original = event.tuple == flow.original;
    let mut arrived = false;
    let mut lost = false;
    match (event.part, event.hook) {
        (Part::Ack, Hook::NetifReceive) => arrived = is_original,
        (Part::SynAck, Hook::TcpFinishConnect) => arrived = true,
        (Part::Ack, Hook::TcpSynRecvSock) if event.phase == Phase::Entry => {
            arrived = true;
            flow.accepted = true;
            flow.over_ns.get_or_insert(event.time_ns);
        }
        (Part::Ack, Hook::TcpSynRecvSock) => {
            lost = true;
            flow.accepted = false;
        }
        // A listener that refuses the ACK answers with RST. One that waits for data (TCP_DEFER_ACCEPT) drops the bare ACK in
        // its own netns.
        (Part::Ack, Hook::TcpSendReset) => lost = !flow.accepted && !flow.acceptance_unseen,
        (Part::Ack, Hook::KfreeSkb) => {
            lost = !flow.accepted
                && !flow.acceptance_unseen
                && event.netns == flow.netns
                && has_listener_elsewhere(flow);
        }
        _ => {}
    }
    if arrived {
        flow.established_ns.get_or_insert(event.time_ns);
        // A tap's copy was dropped, or the client's first data followed at once: nothing was retransmitted.
        let at_once = |lost: u64| event.time_ns.saturating_sub(lost) < SETTLE_NS;
        flow.ack_lost_ns = flow.ack_lost_ns.filter(|&lost| !at_once(lost));
    }
    if lost {
        flow.established_ns = None;
        flow.over_ns = None;
        flow.ack_lost_ns.get_or_insert(event.time_ns);
    }
}

/// Whether a listener in another netns of this machine accepted the SYN. If so, tracer would have seen it accept the ACK too.
fn has_listener_elsewhere(flow: &Flow) -> bool {
    let accepted = |step: &Step| step.event.hook == Hook::TcpConnRequest && !flow.is_on_node(&step.event);
    flow.steps.iter().any(accepted)
}

/// The attempt that an event belongs to: the newest SYN with this packet's buffer, or else the newest that was sent, because a
/// buffer may be freed long after its SYN was retransmitted. Other packets belong to the newest SYN, or to the copy that
/// survived in its place, unless they were on their path before that SYN came.
fn attempt_of(flow: &Flow, event: &Event) -> usize {
    let newest = flow.sent().next_back().unwrap_or(0);
    if event.part != Part::Syn {
        return answered_before(flow, event).unwrap_or_else(|| judge::surviving(flow, newest));
    }
    flow.attempts
        .iter()
        .rposition(|attempt| attempt.skb == event.skb)
        .unwrap_or(newest)
}

/// The attempt that an already seen SYN-ACK answers: it waits for ARP/ND, or was seen a moment ago. A SYN-ACK at the device
/// where they come from is a new one, possibly in a buffer that was just freed.
fn answered_before(flow: &Flow, event: &Event) -> Option<usize> {
    if event.part != Part::SynAck {
        return None;
    }
    let is_same = |step: &&Step| step.event.skb == event.skb && step.event.part == event.part;
    let before = flow.steps.iter().rfind(is_same)?;
    let is_queued = before.event.hook == Hook::NeighbourSend;
    let is_new =
        Some(Place::of(event)) == flow.synack_origin || matches!(before.event.payload, Payload::Drop(_));
    let at_once = event.time_ns.saturating_sub(before.event.time_ns) < SETTLE_NS;
    (is_queued || at_once && !is_new).then_some(before.attempt)
}
