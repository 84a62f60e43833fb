//! Packets that the routing layer discarded: their source was refused, or there was no way for them.

mod source;
mod way;

use std::net::IpAddr;

use tracer_common::{hook::Hook, record, tcp::Part};

use super::{
    case::{Case, Situation},
    catalogue::Row,
    evidence::Evidence,
};
use crate::{decode::event::Payload, facts::route::Route, flow::model::Step};

/// The rows of this subject.
pub(super) const ROWS: &[Row] = &[
    source::RP_FILTER,
    source::MARTIAN,
    way::FORWARDING_OFF,
    way::UNREACHABLE,
];

/// The step at which the packet was freed: on the node, or else in the backend's network namespace, if nothing of it
/// was seen after that.
pub(super) fn end<'a>(case: &Case<'a>) -> Option<&'a Step> {
    case.discarded.or_else(|| {
        let last = case
            .steps()
            .rfind(|step| matches!(step.event.part, Part::Syn | Part::SynAck))?;
        let elsewhere = matches!(case.situation, Situation::Silent | Situation::Late);
        (elsewhere && matches!(last.event.payload, Payload::Drop(_))).then_some(last)
    })
}

/// What a hook of the routing layer read about the packet that was freed in the end.
fn told<'a>(case: &Case<'a>, hook: Hook, end: &Step) -> Option<(&'a Step, &'a record::Route)> {
    case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Route(route)
            if step.event.hook == hook
                && step.event.skb == end.event.skb
                && step.event.part == end.event.part
                && step.event.time_ns <= end.event.time_ns =>
        {
            Some((step, route))
        }
        _ => None,
    })
}

/// The kernel's word for why the packet was freed, where it has one.
fn reason<'a>(case: &Case<'a>, end: &Step) -> Option<&'a str> {
    match &end.event.payload {
        Payload::Drop(drop) => case.facts.drop_reasons.get(&drop.reason).map(String::as_str),
        _ => None,
    }
}

/// Was the packet freed in one of these functions? What stands behind a name is where in it, and in which copy that
/// the compiler made (`ip_rcv_finish_core.isra.0+0x234`).
fn freed_in(case: &Case<'_>, end: &Step, functions: &[&str]) -> bool {
    let Payload::Drop(drop) = &end.event.payload else {
        return false;
    };
    case.facts.symbol(drop.location).is_some_and(|place| {
        let function = place.split(['+', ' ', '.']).next().unwrap_or_default();
        functions.contains(&function)
    })
}

/// The packet that was freed, in words.
pub(super) fn packet(end: &Step) -> &'static str {
    match end.event.part {
        Part::SynAck => "answer",
        _ => "SYN",
    }
}

/// The device at which a step happened, in words.
pub(super) fn device(step: &Step) -> String {
    step.event
        .dev
        .get()
        .unwrap_or_else(|| "an unknown device".to_owned())
}

/// The way from the namespace in which a step happened to an address.
fn way_to<'a>(case: &Case<'a>, step: &Step, address: IpAddr) -> Option<&'a Route> {
    case.facts.route(step.event.netns, address)
}

fn way_evidence(case: &Case<'_>, step: &Step, address: IpAddr) -> Option<Evidence> {
    let way = way_to(case, step, address)?;
    Some(Evidence::read(
        format!("route to {address}"),
        way.to_string(),
        "rtnetlink",
    ))
}
