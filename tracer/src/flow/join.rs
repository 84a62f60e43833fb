//! What an event is to the flow that it belongs to: one more SYN of the client, or something that became of one.

use tracer_common::{
    hook::Hook,
    record::{Phase, time_wait},
    tcp::Part,
};

use super::{
    judge,
    model::{AGAIN_NS, Attempt, Flow, MOST_ATTEMPTS, Place, Step},
};
use crate::decode::event::{Event, What};

/// Once the fate is known, other CPUs' records of the same moment may still be under way.
pub(super) const SETTLE_NS: u64 = 50_000_000;
/// ICMP destination unreachable (RFC 792), and that of ICMPv6 (RFC 4443).
const ICMP_UNREACHABLE: u32 = 3;
/// Its code for a packet that is too big and must not be fragmented.
const ICMP_FRAG_NEEDED: u32 = 4;
const ICMPV6_UNREACHABLE: u32 = 1;

/// Is this a place where a SYN of a client is first seen: a device, or for a client on the node itself its socket, or
/// IPVS?
pub(super) fn is_arrival(event: &Event) -> bool {
    event.phase == Phase::Entry
        && event.outer.is_none()
        && (matches!(event.hook, Hook::NetifReceive | Hook::TcpConnect) || event.hook.is_ipvs_request())
}

/// Adds an event to its flow: a SYN where SYNs come in is a new attempt, everything else belongs to one.
pub(super) fn add(flow: &mut Flow, event: Event) {
    if let What::Skipped(_) = event.what {
        flow.skip(&event);
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
        });
        if flow.syn_origin.is_at(Hook::TcpConnect) {
            flow.take_over(event.time_ns);
        }
    }
    if event.part == Part::SynAck && matches!(event.hook, Hook::DevStartXmit | Hook::NetifReceive) {
        let place = Place::of(&event);
        if *flow.synack_origin.get_or_insert(place) == place {
            flow.synacks += 1;
        }
    }
    acknowledge(flow, &event);
    if refuses(flow, &event) && flow.refused_ns.is_none() && flow.established_ns.is_none() {
        flow.refused_ns = Some(event.time_ns);
    }
    let attempt = attempt_of(flow, &event);
    flow.push(event, attempt);
}

/// Is this SYN, as the client sent it, seen where the flow's first one was seen?
fn is_attempt(flow: &Flow, event: &Event) -> bool {
    let place = Place::of(event);
    if flow.syn_origin.is_at(Hook::TcpConnect) {
        return event.hook == Hook::TcpConnect || is_sent_again(flow, event);
    }
    is_arrival(event) && place == flow.syn_origin
}

/// Does a client on the node send its SYN again? The kernel tells once it has, and before 6.15 not if the SYN was discarded
/// on its way out (`__tcp_retransmit_skb`, `net/ipv4/tcp_output.c`): then what is seen of it there tells.
fn is_sent_again(flow: &Flow, event: &Event) -> bool {
    let on_its_way_out = event.phase == Phase::Entry
        && (event.hook.is_ipvs_request()
            || matches!(
                event.hook,
                Hook::NatSetup
                    | Hook::NftDoChain
                    | Hook::IptDoTable
                    | Hook::CtIn
                    | Hook::XtDnat
                    | Hook::XtDnatV0
                    | Hook::NftNat
                    | Hook::KfreeSkb
            ));
    (event.hook == Hook::TcpRetransmit || on_its_way_out)
        && event.time_ns >= flow.last_syn_ns().saturating_add(AGAIN_NS)
}

/// Is this SYN one that the client did not send? It comes too soon after the last one, or after the client's ACK. But a
/// client that was answered otherwise than it wished may try again at once.
fn is_copy(flow: &Flow, syn: &Event) -> bool {
    let Some(index) = flow.sent().next_back() else {
        return false;
    };
    let last = &flow.attempts[index];
    let soon = syn.time_ns.saturating_sub(last.time_ns) < AGAIN_NS;
    let may_try_again = || {
        flow.steps
            .iter()
            .any(|step| step.event.time_ns >= last.time_ns && tells_client(step))
            || met_a_connection(flow, index)
    };
    // The TCP of a client on this machine was seen to send it.
    syn.hook != Hook::TcpRetransmit && (flow.established_ns.is_some() || soon && !may_try_again())
}

/// Is the client told something at this step that is no SYN-ACK: an ICMP error, a RST, or the bare ACK of an ended
/// connection?
fn tells_client(step: &Step) -> bool {
    matches!(step.event.what, What::Icmp(_))
        || step.event.part == Part::Rst
        || step.event.hook == Hook::TcpTimewait && step.verdict != Some(time_wait::SYN)
}

/// Did TCP throw this SYN away without a listener being asked? It met a connection that is still alive for its socket, which
/// answers with a bare ACK; the client's RST ends that connection, and Linux then sends its SYN again at once. Inside TCP a
/// packet has no device.
fn met_a_connection(flow: &Flow, attempt: usize) -> bool {
    let mut thrown_away = false;
    for step in flow.steps_of(attempt).filter(|step| step.event.part == Part::Syn) {
        match (&step.event.what, step.event.hook) {
            (What::Drop(_), _) if step.event.netns == 0 => thrown_away = true,
            (_, Hook::TcpConnRequest | Hook::TcpTimewait) => return false,
            _ => {}
        }
    }
    thrown_away
}

/// What an event says about the ACK that ends the handshake: that it came in, was taken, or was lost in between.
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
        // Where the listener answers with RST, that tells; and a listener that waits for data throws the bare ACK
        // away, in its own netns.
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
        // What was discarded was a tap's copy, or the client's first data came right behind: nothing was sent again.
        let at_once = |lost: u64| event.time_ns.saturating_sub(lost) < SETTLE_NS;
        flow.ack_lost_ns = flow.ack_lost_ns.filter(|&lost| !at_once(lost));
    }
    if lost {
        flow.established_ns = None;
        flow.over_ns = None;
        flow.ack_lost_ns.get_or_insert(event.time_ns);
    }
}

/// Did a listener in another netns of this machine take the SYN, so that it would have been seen to take the ACK too?
fn has_listener_elsewhere(flow: &Flow) -> bool {
    let took = |step: &Step| step.event.hook == Hook::TcpConnRequest && !flow.is_on_node(&step.event);
    flow.steps.iter().any(took)
}

/// Does this event show that the client is told no: a RST with the address that it asked, a RST for its ACK, or an ICMP
/// error about the SYN?
fn refuses(flow: &Flow, event: &Event) -> bool {
    match (event.part, &event.what) {
        (Part::Ack, What::Socket(_)) => event.hook == Hook::TcpSendReset,
        (Part::Rst, What::Packet) if event.hook == Hook::TcpReceiveReset => true,
        (Part::Rst, What::Packet) => {
            event.hook == Hook::DevStartXmit
                && event.tuple == flow.original.reversed()
                && (flow.is_on_node(event) || flow.is_answered_directly())
        }
        (Part::Syn, What::Icmp(icmp)) => {
            let unreachable = if event.tuple.is_v6() {
                ICMPV6_UNREACHABLE
            } else {
                ICMP_UNREACHABLE
            };
            // Too big is no refusal, and an error about a tunnel's packet goes to the tunnel.
            let too_big = !event.tuple.is_v6() && icmp.code == ICMP_FRAG_NEEDED;
            icmp.icmp_type == unreachable && !too_big && event.outer.is_none() && flow.is_on_node(event)
        }
        _ => false,
    }
}

/// The newest SYN with this packet's buffer, or else the newest that was sent: a buffer may be freed long after its SYN
/// was sent again. What is no SYN belongs to the newest as well, or to the copy that went on in its place.
fn attempt_of(flow: &Flow, event: &Event) -> usize {
    let newest = flow.sent().next_back().unwrap_or(0);
    if event.part != Part::Syn {
        return judge::standing(flow, newest);
    }
    flow.attempts
        .iter()
        .rposition(|attempt| attempt.skb == event.skb)
        .unwrap_or(newest)
}
