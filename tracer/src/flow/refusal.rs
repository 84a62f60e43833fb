//! What refuses a client: a RST, or an ICMP error about its SYN.

use tracer_common::{hook::Hook, tcp::Part};

use super::{model::Flow, step::Step};
use crate::decode::event::{Event, Payload};

/// ICMP destination unreachable (RFC 792).
const ICMP_UNREACHABLE: u32 = 3;
/// Its code for a packet that is too big and must not be fragmented.
const ICMP_FRAG_NEEDED: u32 = 4;
/// ICMPv6 destination unreachable (RFC 4443).
const ICMPV6_UNREACHABLE: u32 = 1;

/// Time exceeded in ICMP and ICMPv6, and the code for a TTL that expired in transit.
const ICMP_TIME_EXCEEDED: u32 = 11;
const ICMPV6_TIME_EXCEEDED: u32 = 3;
const IN_TRANSIT: u32 = 0;
/// A client that sends nothing for this long after its first SYN has given up, nanoseconds: it would have retransmitted after a
/// second.
const GIVES_UP_NS: u64 = 2_000_000_000;

/// The step that refused the client for one SYN or a copy of it.
#[must_use]
pub fn of(flow: &Flow, attempt: usize) -> Option<&Step> {
    let sent = flow.sent_of(attempt);
    let own = |step: &&Step| flow.sent_of(step.attempt) == sent;
    flow.steps
        .iter()
        .filter(own)
        .find(|step| refuses(flow, &step.event))
        .or_else(|| gave_up(flow).filter(own))
}

/// The step at which this machine refused the last SYN, after which the client gave up. Whether the refusal reached the client
/// was not seen.
#[must_use]
pub fn gave_up(flow: &Flow) -> Option<&Step> {
    if flow.patience_ns < GIVES_UP_NS {
        return None;
    }
    expired(flow).or_else(|| reset_unwatched(flow))
}

/// The step at which TCP answered the last SYN with RST, while the hooks that show what leaves this node were not attached. If
/// the RST had not reached the client, the client would have retransmitted its SYN.
fn reset_unwatched(flow: &Flow) -> Option<&Step> {
    let last = flow.sent().next_back()?;
    if flow.is_watched(last) || flow.established_ns.is_some() || flow.is_answered(last) {
        return None;
    }
    let own = || {
        flow.steps
            .iter()
            .filter(|step| flow.sent_of(step.attempt) == last)
    };
    let is_dropped = own().any(|step| {
        step.event.part == Part::Rst
            && matches!(step.event.payload, Payload::Drop(_))
            && flow.is_on_node(&step.event)
    });
    let is_reset = |step: &&Step| {
        step.event.part == Part::Syn && step.event.hook == Hook::TcpSendReset
            || step.event.part == Part::Rst
                && step.event.hook == Hook::NetifReceive
                && flow.is_on_node(&step.event)
            || matches!(step.event.payload, Payload::Reject(_))
    };
    own().find(is_reset).filter(|_| !is_dropped)
}

/// The step at which a network namespace of this machine sent "time exceeded" about the only SYN, after which the client gave up.
///
/// Whether the error reaches the client is not seen. If it does, the client's TCP gives up (`tcp_v4_err`, `net/ipv4/tcp_ipv4.c`,
/// `tcp_v6_err`, `net/ipv6/tcp_ipv6.c`, 3.10 to 7.3); if not, it retransmits after a second.
fn expired(flow: &Flow) -> Option<&Step> {
    if flow.sent().nth(1).is_some() || flow.synacks > 0 {
        return None;
    }
    flow.steps
        .iter()
        .find(|step| step.event.part == Part::Syn && is_time_exceeded(&step.event))
}

/// Whether the kernel sends the sender of the packet "time exceeded in transit". An error about a tunnel's packet goes to the
/// tunnel.
#[must_use]
pub fn is_time_exceeded(event: &Event) -> bool {
    let exceeded = if event.tuple.is_v6() {
        ICMPV6_TIME_EXCEEDED
    } else {
        ICMP_TIME_EXCEEDED
    };
    event.outer.is_none()
        && matches!(&event.payload, Payload::Icmp(icmp) if (icmp.icmp_type, icmp.code) == (exceeded, IN_TRANSIT))
}

/// Whether this event refuses the client: a RST from the address that it connected to, a RST for its ACK, or an ICMP error
/// about the SYN.
pub(super) fn refuses(flow: &Flow, event: &Event) -> bool {
    match (event.part, &event.payload) {
        (Part::Ack, Payload::Socket(_)) => event.hook == Hook::TcpSendReset,
        (Part::Rst, Payload::Packet) if event.hook == Hook::TcpReceiveReset => true,
        (Part::Rst, Payload::Packet) => {
            event.hook == Hook::DevStartXmit
                && event.tuple == flow.original.reversed()
                && (flow.is_on_node(event) || flow.is_answered_directly())
        }
        (Part::Syn, Payload::Icmp(icmp)) => {
            let unreachable = if event.tuple.is_v6() {
                ICMPV6_UNREACHABLE
            } else {
                ICMP_UNREACHABLE
            };
            // "Fragmentation needed" is not a refusal, and an error about a tunnel's packet goes to the
            // tunnel.
            let too_big = !event.tuple.is_v6() && icmp.code == ICMP_FRAG_NEEDED;
            icmp.icmp_type == unreachable && !too_big && event.outer.is_none() && flow.is_on_node(event)
        }
        _ => false,
    }
}
