//! Packets that TCP drops because their checksum is wrong.

use tracer_common::hook::Hook;

use crate::diagnose::{
    case::{Case, Proof},
    cause::Cause,
    evidence,
    route::freed,
    row::{Absence, Group, Row},
};

/// The drop reason, since 5.17 (`tcp_v4_rcv`, `tcp_v6_rcv`).
const REASON: &str = "TCP_CSUM";

pub(in crate::diagnose) const ROWS: &[Row] = &[Row {
    cause: Cause::TcpBadChecksum,
    group: Group::BackendTcp,
    summary: "TCP dropped the packet: its checksum is wrong.",
    proof: "The packet was freed with the reason TCP_CSUM.",
    advice: Some(
        "Find out who sends the packet without a valid checksum: with checksum offload a device fills it in, and a faulty driver, \
         tunnel or virtual switch does not. Turn off its transmit offload (`ethtool -K DEV tx off`), and compare captures before \
         and after that device. `nstat -az TcpInCsumErrors` in the receiver's network namespace counts such packets.",
    ),
    scope: "Every dataplane, on kernels with drop reasons (5.17 and later). Older ones free such a packet at the same place as \
            others. Where a rule drops INVALID packets on the node: see conntrack.invalid.",
    hooks: &[&[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    detect: bad_checksum,
}];

fn bad_checksum(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    if freed::reason(case, freed) != Some(REASON) {
        return None;
    }
    let place = if freed.netns == case.flow.netns {
        "this node's TCP".to_owned()
    } else {
        format!(
            "TCP in the backend's network namespace ({})",
            evidence::place(freed)
        )
    };
    Some(Proof::new(
        format!(
            "The {} {} -> {} has a wrong checksum: {place} dropped it.",
            freed::packet(freed),
            freed.event.tuple.source(),
            freed.event.tuple.destination(),
        ),
        evidence::dropped(freed, case.facts),
    ))
}
