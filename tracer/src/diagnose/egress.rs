//! Where a dropped packet was about to leave.

use tracer_common::record::Egress;

use super::case::Case;
use crate::decode::event::{Payload, text};

/// The output that was chosen for the packet that was dropped.
pub(super) fn of<'a>(case: &Case<'a>) -> Option<&'a Egress> {
    let dropped = &case.dropped?.event;
    case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Egress(egress) if step.event.skb == dropped.skb && step.event.time_ns <= dropped.time_ns => {
            Some(egress)
        }
        _ => None,
    })
}

/// The next hop of the packet that was dropped.
pub(super) fn next_hop(case: &Case<'_>) -> Option<String> {
    let gateway = of(case)?.gateway;
    (!gateway.is_unset()).then(|| gateway.ip().to_string())
}

/// Next hop and qdisc, in one line.
#[must_use]
pub fn describe(egress: &Egress) -> String {
    let qdisc = Some(text(&egress.qdisc)).filter(|name| !name.is_empty());
    let gateway = (!egress.gateway.is_unset()).then(|| egress.gateway.ip());
    match (gateway, qdisc) {
        (Some(gateway), Some(qdisc)) => format!("next hop {gateway}, qdisc {qdisc}"),
        (Some(gateway), None) => format!("next hop {gateway}"),
        (None, Some(qdisc)) => format!("qdisc {qdisc}"),
        (None, None) => "output".to_owned(),
    }
}
