//! Packets queued for ARP/ND whose next hop was resolved too late or never.

use tracer_common::{
    hook::Hook,
    record::{self, neighbour},
    tcp::Part,
    tuple::Addr,
};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    route::freed,
    row::{Absence, Group, Light, Row},
};
use crate::{decode::event::Payload, flow::model::Step};

mod wrong_address;

pub(super) const ROWS: &[Row] = &[UNRESOLVED, wrong_address::WRONG_ADDRESS];

const UNRESOLVED: Row = Row {
    cause: Cause::NeighUnresolved,
    group: Group::Network,
    summary: "ARP/ND for the next hop is unresolved: the packet was queued in the neighbour entry and dropped after about 3 \
              seconds, or sent too late.",
    proof: "The packet was freed by the neighbour layer (arp_error_report and the like, or a reason NEIGH_*); or \
            __neigh_event_send queued it, and it was never handed to a device, or only after a retransmission.",
    advice: Some(
        "Check `ip neigh` for the next hop: the pod is gone while its address is still in use, the pod's end of its veth is down, \
         or the table is full (gc_thresh3).",
    ),
    scope: "Every kernel and dataplane. A full neighbour table is detectable since 5.18, by its drop reason.",
    hooks: &[&[Hook::NeighbourSend], &[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: unresolved,
};

/// The setting that limits the neighbour table of the flow's family, for all network namespaces together.
pub(super) fn table_limit(case: &Case<'_>) -> &'static str {
    if case.flow.original.is_v6() {
        "net.ipv6.neigh.default.gc_thresh3"
    } else {
        "net.ipv4.neigh.default.gc_thresh3"
    }
}

/// The end of a packet that was queued for its next hop.
enum End<'a> {
    /// It was freed.
    Freed(&'a Step),
    /// It is still queued.
    Queued,
    /// It left after this many nanoseconds.
    Late(u64),
}

/// A packet that was queued, and the neighbour entry.
type Wait<'a> = (&'a Step, &'a record::Neighbour);

fn unresolved(case: &Case<'_>) -> Option<Proof> {
    if let Some(freed) = freed::step(case)
        && is_freed_by_neighbour(case, freed)
    {
        let wait = waits(case)
            .filter(|(step, _)| step.event.skb == freed.event.skb && step.event.part == freed.event.part)
            .last();
        return Some(proof(case, freed, wait, &End::Freed(freed)));
    }
    // What would show that the packet left was not attached.
    if !case.is_watched() {
        return None;
    }
    match case.situation {
        Situation::Silent => {
            let (step, entry) = waits(case).last()?;
            let went_on = case
                .steps()
                .any(|later| later.event.time_ns > step.event.time_ns && later.event.part == step.event.part);
            (!went_on).then(|| proof(case, step, Some((step, entry)), &End::Queued))
        }
        Situation::Late => late(case),
        Situation::Dropped | Situation::Refused | Situation::Established => None,
    }
}

/// Proves that a packet left only after the SYN had been retransmitted.
fn late(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    waits(case).find_map(|(step, entry)| {
        let left = flow.left_ns(step)?;
        let is_retransmitted = flow
            .attempts
            .iter()
            .any(|attempt| (step.event.time_ns..left).contains(&attempt.time_ns));
        let waited = left - step.event.time_ns;
        is_retransmitted.then(|| proof(case, step, Some((step, entry)), &End::Late(waited)))
    })
}

/// Each time the SYN, a copy of it or its answer was queued for a neighbour, in order.
fn waits<'a>(case: &Case<'a>) -> impl Iterator<Item = Wait<'a>> + use<'a> {
    let (flow, sent) = (case.flow, case.flow.sent_of(case.attempt));
    flow.steps
        .iter()
        .filter(move |step| flow.sent_of(step.attempt) == sent)
        .filter_map(|step| match &step.event.payload {
            Payload::Neighbour(entry) if matches!(step.event.part, Part::Syn | Part::SynAck) => {
                Some((step, entry))
            }
            _ => None,
        })
}

/// Whether the packet was freed because its next hop was unresolved.
fn is_freed_by_neighbour(case: &Case<'_>, freed: &Step) -> bool {
    let Payload::Drop(drop) = &freed.event.payload else {
        return false;
    };
    let reason = case.facts.drop_reasons.get(&drop.reason);
    if reason.is_some_and(|reason| reason.starts_with("NEIGH_")) {
        return true;
    }
    case.facts.symbol(drop.location).is_some_and(|place| {
        [
            "arp_error_report",
            "ndisc_error_report",
            "__neigh_event_send",
            "neigh_",
        ]
        .iter()
        .any(|function| place.starts_with(function))
    })
}

fn proof(case: &Case<'_>, step: &Step, wait: Option<Wait<'_>>, end: &End<'_>) -> Proof {
    let device = freed::device(wait.map_or(step, |(step, _)| step));
    let next_hop = wait
        .map(|(_, entry)| entry.address)
        .filter(|address| !address.is_unset())
        .map(Addr::ip);
    let whose = next_hop.map_or_else(
        || format!("the next hop to {} on {device}", step.event.tuple.daddr.ip()),
        |address| format!("{address} on {device}"),
    );
    let is_full = matches!(&step.event.payload, Payload::Drop(drop)
        if case.facts.drop_reasons.get(&drop.reason).is_some_and(|reason| reason == "NEIGH_CREATEFAIL"));
    let packet = freed::packet(step);
    let explanation = match end {
        End::Freed(_) if is_full => {
            format!(
                "The {packet} was dropped: the neighbour table is full, so its next hop on {device} got no entry."
            )
        }
        End::Freed(_) => format!("The {packet} was dropped: ARP/ND for {whose} is unresolved."),
        End::Queued => format!("The {packet} is queued on this node: ARP/ND for {whose} is unresolved."),
        End::Late(nanoseconds) => format!(
            "The {packet} was queued for {} ms until ARP/ND resolved {whose}; meanwhile the SYN was retransmitted.",
            nanoseconds / 1_000_000
        ),
    };
    let mut evidence = Vec::new();
    if let Some((step, entry)) = wait {
        if let Some(address) = next_hop {
            evidence.push(Evidence::seen(Key::NextHop, address.to_string(), step.event.hook));
        }
        evidence.push(Evidence::seen(
            Key::Device,
            evidence::place(step),
            step.event.hook,
        ));
        if let Some(state) = neighbour::state_name(entry.state) {
            evidence.push(Evidence::seen(Key::NeighbourState, state, step.event.hook));
        }
    }
    if is_full
        && let Some(limit) = case
            .netns()
            .and_then(|netns| netns.sysctls.get(table_limit(case)))
    {
        evidence.push(Evidence::read(Key::NeighbourLimit, limit, "/proc/sys"));
    }
    if let End::Freed(freed) = end {
        if case.situation == Situation::Refused {
            evidence.extend(evidence::icmp(case.flow));
        }
        evidence.extend(evidence::dropped(freed, case.facts));
    }
    Proof::new(explanation, evidence)
}
