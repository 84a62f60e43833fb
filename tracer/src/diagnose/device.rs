//! Devices and their queues that discard what they are to send.

use tracer_common::hook::Hook;

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::decode::event::text;

/// Drop reasons (`enum skb_drop_reason`) of queues and devices on the way out, and how those begin that tell apart what a
/// queue did (`QDISC_DROP`; `QDISC_OVERLIMIT` and its kin since 6.14).
const REASONS: [&str; 5] = [
    "TC_EGRESS",
    "TC_RECLASSIFY_LOOP",
    "FULL_RING",
    "DEV_READY",
    "RECURSION_LIMIT",
];
const REASONS_BEGIN: &str = "QDISC_";

/// Functions on the way out of a device that free a packet without such a reason. A whole packet of a handshake is freed
/// as a list of packets (`kfree_skb_list`) only by `__dev_queue_xmit`: for its queue, or because the device is down
/// (`net/core/dev.c`, 5.10 to 7.3).
const FUNCTIONS: [&str; 10] = [
    "__dev_queue_xmit",
    "__dev_xmit_skb",
    "kfree_skb_list",
    "kfree_skb_list_reason",
    "tcf_kfree_skb_list",
    "sch_direct_xmit",
    "dev_hard_start_xmit",
    "validate_xmit_skb_list",
    "veth_xmit",
    "net_tx_action",
];

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::DevTxDropped,
    says: "A device of this node, its queueing discipline or a tc filter discarded the packet instead of sending it.",
    proof: "The packet was freed with a drop reason of queues and devices (QDISC_*, TC_EGRESS, FULL_RING, …), or by \
            __dev_queue_xmit, the functions it calls, or the driver; the device and its queueing discipline were read \
            from the packet.",
    advice: Some(
        "Look at the device: `tc -s qdisc show dev` and `tc filter show dev` with its name (noop: nothing is at its other \
         end, or it is not up yet), and `ip -s link show dev`.",
    ),
    occurs: "Every kernel and dataplane.",
    hooks: &[&[Hook::KfreeSkb]],
    find: not_sent,
}];

fn not_sent(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped || !is_devices(case) {
        return None;
    }
    let step = case.discarded?;
    let qdisc = evidence::egress(case)
        .map(|egress| text(&egress.qdisc))
        .filter(|name| !name.is_empty());
    let by = match (case.drop_reason(), &qdisc) {
        (Some("TC_EGRESS" | "TC_RECLASSIFY_LOOP"), _) => ", by a tc filter".to_owned(),
        (_, Some(qdisc)) if qdisc == "noop" => {
            ", because nothing is at its other end, or it is not up".to_owned()
        }
        (_, Some(qdisc)) if qdisc != "noqueue" => format!(", whose queueing discipline is {qdisc}"),
        _ => String::new(),
    };
    let device = step.event.dev.get().unwrap_or_else(|| "a device".to_owned());
    let mut evidence = vec![Evidence::seen("device", device.clone(), Hook::KfreeSkb)];
    evidence.extend(qdisc.map(|name| Evidence::seen("queueing discipline", name, Hook::KfreeSkb)));
    evidence.extend(evidence::discarded(step, case.facts));
    Some(Proof {
        explanation: format!(
            "The {} {} -> {} was to leave this node by {device}, but was discarded there{by}.",
            case.discarded_packet(),
            step.event.tuple.source(),
            step.event.tuple.destination(),
        ),
        evidence,
    })
}

fn is_devices(case: &Case<'_>) -> bool {
    let of_device = |reason: &str| reason.starts_with(REASONS_BEGIN) || REASONS.contains(&reason);
    match case.drop_reason() {
        Some(reason) if reason != "NOT_SPECIFIED" => of_device(reason),
        _ => case
            .discarded_in()
            .is_some_and(|symbol| FUNCTIONS.contains(&evidence::function(symbol))),
    }
}
