//! Devices and qdiscs that dropped a packet instead of sending it.

use tracer_common::hook::Hook;

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    egress,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
};
use crate::decode::event::text;

/// Drop reasons (`enum skb_drop_reason`) of output devices and queues; those of qdiscs share a prefix (`QDISC_DROP`;
/// `QDISC_OVERLIMIT` and others since 6.14).
const REASONS: [&str; 5] = [
    "TC_EGRESS",
    "TC_RECLASSIFY_LOOP",
    "FULL_RING",
    "DEV_READY",
    "RECURSION_LIMIT",
];
const QDISC_REASON: &str = "QDISC_";

/// Functions on the output path of a device that free a packet without such a reason. A packet of a handshake is freed as a
/// list (`kfree_skb_list`) only by `__dev_queue_xmit`: for its qdisc, or because the device is down (`net/core/dev.c`, 5.10 to
/// 7.3).
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
    group: Group::Network,
    summary: "A device of this node, its qdisc or a tc filter dropped the packet instead of sending it.",
    proof: "The packet was freed with a drop reason of output devices and queues (QDISC_*, TC_EGRESS, FULL_RING, …), or by \
            __dev_queue_xmit, the functions it calls, or the driver; the device and its qdisc were read from the packet.",
    advice: Some(
        "Check the device with `tc -s qdisc show`, `tc filter show` and `ip -s link show` (qdisc noop: nothing is at its other end, \
         or it is not up yet).",
    ),
    scope: "Every kernel and dataplane.",
    hooks: &[&[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: not_sent,
}];

fn not_sent(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped || !is_by_device(case) {
        return None;
    }
    let step = case.dropped?;
    let qdisc = egress::of(case)
        .map(|egress| text(&egress.qdisc))
        .filter(|name| !name.is_empty());
    let by = match (case.drop_reason(), &qdisc) {
        (Some("TC_EGRESS" | "TC_RECLASSIFY_LOOP"), _) => " by a tc filter".to_owned(),
        (_, Some(qdisc)) if qdisc == "noop" => {
            ": nothing is at the device's other end, or it is not up".to_owned()
        }
        (_, Some(qdisc)) if qdisc != "noqueue" => format!(" (qdisc {qdisc})"),
        _ => String::new(),
    };
    let device = step.event.dev.get().unwrap_or_else(|| "a device".to_owned());
    let mut evidence = vec![Evidence::seen(Key::Device, device.clone(), Hook::KfreeSkb)];
    evidence.extend(qdisc.map(|name| Evidence::seen(Key::Qdisc, name, Hook::KfreeSkb)));
    evidence.extend(evidence::dropped(step, case.facts));
    Some(Proof::new(
        format!(
            "The {} {} -> {} was dropped on output at {device}{by}.",
            case.dropped_packet(),
            step.event.tuple.source(),
            step.event.tuple.destination(),
        ),
        evidence,
    ))
}

fn is_by_device(case: &Case<'_>) -> bool {
    let of_device = |reason: &str| reason.starts_with(QDISC_REASON) || REASONS.contains(&reason);
    match case.drop_reason() {
        Some(reason) if reason != "NOT_SPECIFIED" => of_device(reason),
        _ => case
            .dropped_in()
            .is_some_and(|symbol| FUNCTIONS.contains(&evidence::function(symbol))),
    }
}
