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

/// The step that refused the client for one SYN or a copy of it.
#[must_use]
pub fn of(flow: &Flow, attempt: usize) -> Option<&Step> {
    let sent = flow.sent_of(attempt);
    let own = |step: &&Step| flow.sent_of(step.attempt) == sent;
    flow.steps
        .iter()
        .filter(own)
        .find(|step| refuses(flow, &step.event))
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
            // "Fragmentation needed" is no refusal, and an error about a tunnel's packet goes to the tunnel.
            let too_big = !event.tuple.is_v6() && icmp.code == ICMP_FRAG_NEEDED;
            icmp.icmp_type == unreachable && !too_big && event.outer.is_none() && flow.is_on_node(event)
        }
        _ => false,
    }
}
