//! Packets of a flow about which the kernel has not decided yet: a neighbour entry or a netfilter queue holds them.

use tracer_common::uapi::verdict;

use super::{model::Flow, step::Step};
use crate::decode::event::{Event, Payload};

/// How long a flow stays open for a packet that the kernel holds, in nanoseconds. ARP/ND gives up after `mcast_solicit` (3)
/// probes, `retrans_time_ms` (1 s) apart, and frees what it queued (`neigh_timer_handler`, `net/core/neighbour.c`). Three
/// times that allows for longer settings and a busy node. A netfilter queue has no limit of its own.
pub(super) const WAIT_NS: u64 = 10_000_000_000;
/// `NF_QUEUE` (`uapi/linux/netfilter.h`).
const NF_QUEUE: i32 = 3;

/// `NUD_INCOMPLETE` (`uapi/linux/neighbour.h`), the only state in which an entry queues packets.
const INCOMPLETE: u32 = 1;
const UNREAD: u32 = u32::MAX;

/// Whether the kernel holds the packet after this event.
pub(super) fn holds(event: &Event, verdict: Option<i32>) -> bool {
    match &event.payload {
        Payload::Neighbour(entry) => matches!(entry.state, INCOMPLETE | UNREAD),
        _ => {
            event.hook.evaluates_rules() && verdict.is_some_and(|verdict| verdict::code(verdict) == NF_QUEUE)
        }
    }
}

/// The step since which the kernel has held a packet of this flow; the last one of several.
#[must_use]
pub fn held(flow: &Flow) -> Option<&Step> {
    if !flow.may_be_held {
        return None;
    }
    let is_held = |(index, step): &(usize, &Step)| {
        let is_same =
            |other: &&Step| (other.event.skb, other.event.part) == (step.event.skb, step.event.part);
        let went_on = flow.steps[index + 1..].iter().any(|later| is_same(&later));
        // A packet that the function freed instead is recorded as dropped before the function returns.
        let is_freed = || {
            let before = flow.steps[..*index].iter().rfind(is_same);
            before.is_some_and(|before| matches!(before.event.payload, Payload::Drop(_)))
        };
        holds(&step.event, step.verdict) && !went_on && !is_freed()
    };
    let mut steps = flow.steps.iter().enumerate().rev();
    steps.find(is_held).map(|(_, step)| step)
}
