//! The packet that was freed, and what the routing layer showed about it.

use std::net::IpAddr;

use tracer_common::{hook::Hook, record, tcp::Part};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Situation},
        evidence::{self, Evidence, Key},
    },
    facts::route::Route,
    flow::model::Step,
};

/// The step at which the packet was freed: on the node, or else in the backend's network namespace, if nothing of it was seen
/// after that.
pub(in crate::diagnose) fn step<'a>(case: &Case<'a>) -> Option<&'a Step> {
    case.dropped.or_else(|| {
        let last = case
            .steps()
            .rfind(|step| matches!(step.event.part, Part::Syn | Part::SynAck))?;
        let elsewhere = matches!(case.situation, Situation::Silent | Situation::Late);
        (elsewhere && matches!(last.event.payload, Payload::Drop(_))).then_some(last)
    })
}

/// The data that a hook of the routing layer read about a packet that was freed later.
pub(super) fn read_by<'a>(
    case: &Case<'a>,
    hook: Hook,
    freed: &Step,
) -> Option<(&'a Step, &'a record::Route)> {
    case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Route(route)
            if step.event.hook == hook
                && step.event.skb == freed.event.skb
                && step.event.part == freed.event.part
                && step.event.time_ns <= freed.event.time_ns =>
        {
            Some((step, route))
        }
        _ => None,
    })
}

/// The kernel's drop reason, where it gives one.
pub(super) fn reason<'a>(case: &Case<'a>, freed: &Step) -> Option<&'a str> {
    match &freed.event.payload {
        Payload::Drop(drop) => case.facts.drop_reasons.get(&drop.reason).map(String::as_str),
        _ => None,
    }
}

/// Whether the packet was freed in one of these functions.
pub(super) fn is_in(case: &Case<'_>, freed: &Step, functions: &[&str]) -> bool {
    let Payload::Drop(drop) = &freed.event.payload else {
        return false;
    };
    case.facts
        .symbol(drop.location)
        .is_some_and(|symbol| functions.contains(&evidence::function(symbol)))
}

/// The name of the packet that was freed.
pub(in crate::diagnose) fn packet(freed: &Step) -> &'static str {
    match freed.event.part {
        Part::SynAck => "SYN-ACK",
        _ => "SYN",
    }
}

/// The device at which a step happened.
pub(in crate::diagnose) fn device(step: &Step) -> String {
    step.event
        .dev
        .get()
        .unwrap_or_else(|| "an unknown device".to_owned())
}

/// The route from the namespace of a step to an address.
pub(super) fn route_to<'a>(case: &Case<'a>, step: &Step, address: IpAddr) -> Option<&'a Route> {
    case.facts.route(step.event.netns, address)
}

/// The same as evidence.
pub(super) fn route_evidence(case: &Case<'_>, step: &Step, address: IpAddr) -> Option<Evidence> {
    let route = route_to(case, step, address)?;
    Some(Evidence::read(
        Key::Route,
        format!("{address}: {route}"),
        "rtnetlink",
    ))
}
