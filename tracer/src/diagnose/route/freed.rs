//! The packet that was freed, and what the routing layer showed about it.

use tracer_common::{hook::Hook, record, tcp::Part};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Situation},
        evidence::{self, Evidence, Key},
    },
    facts::route_lookup::RouteLookup,
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
pub(in crate::diagnose) fn reason<'a>(case: &Case<'a>, freed: &Step) -> Option<&'a str> {
    match &freed.event.payload {
        Payload::Drop(drop) => case.facts.drop_reasons.get(&drop.reason).map(String::as_str),
        _ => None,
    }
}

/// Whether the packet was freed in one of these functions.
pub(in crate::diagnose) fn is_in(case: &Case<'_>, freed: &Step, functions: &[&str]) -> bool {
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

/// The kernel's lookup for a packet that routing refused or that was freed.
pub(in crate::diagnose) fn ahead(case: &Case<'_>, freed: &Step) -> RouteLookup {
    let asked = read_by(case, Hook::RouteError, freed).map_or(freed, |(step, _)| step);
    RouteLookup::ahead(asked.netns, &asked.event, case.flow.mark(&asked.event))
}

/// The lookup of a listener for its answer.
pub(in crate::diagnose) fn of_answer(case: &Case<'_>, accepted: &Step) -> RouteLookup {
    RouteLookup::of_answer(accepted.netns, &accepted.event, case.flow.mark(&accepted.event))
}

/// The kernel's lookup of the source of a packet that was freed.
pub(in crate::diagnose) fn of_source(case: &Case<'_>, freed: &Step) -> RouteLookup {
    let asked = read_by(case, Hook::RouteMartian, freed).map_or(freed, |(step, _)| step);
    let lookup = RouteLookup::of_source(asked.netns, &asked.event, case.flow.mark(&asked.event));
    case.facts.as_made(lookup)
}

/// The route of a lookup as evidence.
pub(in crate::diagnose) fn route_evidence(case: &Case<'_>, lookup: &RouteLookup) -> Option<Evidence> {
    let route = match case.facts.route(lookup) {
        Some(route) => route.to_string(),
        None if case.facts.is_undecidable(lookup) => {
            "not known: the policy rules there look at more than tracer knows of the packet".to_owned()
        }
        None => return None,
    };
    let mark = match lookup.mark {
        Some(mark) if mark != 0 => format!(" (mark {mark:#x})"),
        _ => String::new(),
    };
    Some(Evidence::read(
        Key::Route,
        format!("{}{mark}: {route}", lookup.to),
        "rtnetlink",
    ))
}
