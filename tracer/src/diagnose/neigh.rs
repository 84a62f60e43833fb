//! Packets that waited for the hardware address of their next hop, in vain or too long.

use tracer_common::{
    hook::Hook,
    record::{self, neighbour},
    tcp::Part,
    tuple::Addr,
};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    route::{self, packet},
};
use crate::{decode::event::Payload, flow::model::Step};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::NeighUnresolved,
    says: "The next hop did not answer ARP (or neighbour discovery), so the packet could not be sent: it waited in the \
           neighbour entry's queue and was discarded after some 3 seconds, or left too late.",
    proof: "The packet was freed by the neighbour layer (arp_error_report and its kin, or a reason NEIGH_*); or \
            __neigh_event_send queued it and no device was handed it, or only after it had been sent again.",
    advice: Some(
        "Look at `ip neigh` for the next hop: the pod is gone while its address is still in use, the pod's end of its \
         veth is down, or the table is full (gc_thresh3).",
    ),
    occurs: "Every kernel and dataplane. A neighbour table that is full is told from 5.17 on, by its drop reason.",
    hooks: &[&[Hook::NeighbourSend], &[Hook::KfreeSkb]],
    find: unresolved,
}];

/// How a packet that needed the hardware address ended.
enum End<'a> {
    /// It was freed.
    Freed(&'a Step),
    /// It waits still.
    Waiting,
    /// It left after so many nanoseconds.
    Late(u64),
}

fn unresolved(case: &Case<'_>) -> Option<Proof> {
    if let Some(freed) = route::end(case)
        && by_neighbour(case, freed)
    {
        let waited = waits(case)
            .filter(|(step, _)| step.event.skb == freed.event.skb && step.event.part == freed.event.part)
            .last();
        return Some(tell(case, freed, waited, &End::Freed(freed)));
    }
    match case.situation {
        Situation::Silent => {
            let (step, entry) = waits(case).last()?;
            let gone_on = case
                .steps()
                .any(|later| later.event.time_ns > step.event.time_ns && later.event.part == step.event.part);
            (!gone_on).then(|| tell(case, step, Some((step, entry)), &End::Waiting))
        }
        Situation::Late => late(case),
        Situation::Dropped | Situation::Refused => None,
    }
}

/// A packet that left only after it, or what it answers, had been sent again.
fn late(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    waits(case).find_map(|(step, entry)| {
        let left = flow.left_ns(step)?;
        let again = flow
            .attempts
            .iter()
            .any(|attempt| (step.event.time_ns..left).contains(&attempt.time_ns));
        let waited = left - step.event.time_ns;
        again.then(|| tell(case, step, Some((step, entry)), &End::Late(waited)))
    })
}

/// Each time that a packet had to wait for a neighbour, in order. The handshake's other attempts count where the
/// question is why it took so long.
fn waits<'a>(case: &Case<'a>) -> impl Iterator<Item = (&'a Step, &'a record::Neighbour)> + use<'a> {
    let (all, attempt) = (case.situation == Situation::Late, case.attempt);
    case.flow
        .steps
        .iter()
        .filter(move |step| all || step.attempt == attempt)
        .filter_map(|step| match &step.event.payload {
            Payload::Neighbour(entry) if matches!(step.event.part, Part::Syn | Part::SynAck) => {
                Some((step, entry))
            }
            _ => None,
        })
}

/// Was the packet freed because its next hop's hardware address was not known?
fn by_neighbour(case: &Case<'_>, freed: &Step) -> bool {
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

fn tell(case: &Case<'_>, step: &Step, waited: Option<(&Step, &record::Neighbour)>, end: &End<'_>) -> Proof {
    let device = route::device(waited.map_or(step, |(step, _)| step));
    let next_hop = waited
        .map(|(_, entry)| entry.address)
        .filter(|address| !address.is_unset())
        .map(Addr::ip);
    let whose = next_hop.map_or_else(
        || format!("the next hop {} on {device}", step.event.tuple.daddr.ip()),
        |address| format!("{address} on {device}"),
    );
    let full = matches!(&step.event.payload, Payload::Drop(drop)
        if case.facts.drop_reasons.get(&drop.reason).is_some_and(|reason| reason == "NEIGH_CREATEFAIL"));
    let what = packet(step);
    let explanation = match end {
        End::Freed(_) if full => {
            format!(
                "No neighbour entry could be made for the {what}'s next hop on {device}: the table is full."
            )
        }
        End::Freed(_) => {
            format!("The hardware address of {whose} could not be found out, so the {what} was discarded.")
        }
        End::Waiting => {
            format!(
                "The {what} waits on this machine until {whose} tells its hardware address; it was not sent."
            )
        }
        End::Late(nanoseconds) => format!(
            "The {what} had to wait {} ms until {whose} told its hardware address, and was sent again meanwhile.",
            nanoseconds / 1_000_000
        ),
    };
    let mut evidence = Vec::new();
    if let Some((step, entry)) = waited {
        if let Some(address) = next_hop {
            evidence.push(Evidence::seen("next hop", address.to_string(), step.event.hook));
        }
        evidence.push(Evidence::seen("device", evidence::place(step), step.event.hook));
        if let Some(state) = neighbour::state_name(entry.state) {
            evidence.push(Evidence::seen(
                "state of the neighbour entry",
                state,
                step.event.hook,
            ));
        }
    }
    if full && let Some(limit) = case.netns().and_then(|netns| netns.sysctls.get(GC_THRESH)) {
        evidence.push(Evidence::read(GC_THRESH, limit, "/proc/sys"));
    }
    if let End::Freed(freed) = end {
        if case.situation == Situation::Refused {
            evidence.extend(evidence::icmp(case.flow));
        }
        evidence.extend(evidence::discarded(freed, case.facts));
    }
    Proof {
        explanation,
        evidence,
    }
}

/// The most entries that the neighbour table may have, in all network namespaces together.
const GC_THRESH: &str = "net.ipv4.neigh.default.gc_thresh3";
