//! The source of a packet was refused: by the reverse path filter, or as an address that it cannot have.

use std::net::IpAddr;

use tracer_common::{
    hook::Hook,
    record::{self, route},
};

use super::{device, end, freed_in, packet, reason, told, way_evidence, way_to};
use crate::{
    diagnose::{
        case::{Case, Proof},
        catalogue::Row,
        cause::Cause,
        evidence::{self, Evidence},
    },
    facts::route::Route,
    flow::model::Step,
};

/// The functions in which the kernel frees a packet whose route it could not find out (`net/ipv4/ip_input.c`, 3.10 to
/// 7.3; which of them depends on what the compiler inlined).
const INPUT: [&str; 6] = [
    "ip_rcv_finish",
    "ip_rcv_finish_core",
    "ip_list_rcv_finish",
    "ip_sublist_rcv",
    "ip_sublist_rcv_finish",
    "ip_rcv",
];

/// The drop reason of the reverse path filter, since 5.17.
const RPFILTER: &str = "IP_RPFILTER";

/// The reasons for which 7.x refuses addresses; older kernels give none.
const MARTIANS: [&str; 4] = [
    "IP_LOCAL_SOURCE",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_INVALID_DEST",
];

pub(super) const RP_FILTER: Row = Row {
    cause: Cause::RouteRpFilter,
    says: "The reverse path filter discarded the packet: the way back to its source does not lead through the \
           device that it came in by.",
    proof: "The packet was freed with the reason IP_RPFILTER. Where the kernel gives no reasons (before 5.17): \
            ip_handle_martian_source was called for it while rp_filter was on for the device, it was freed at \
            once, and the way to its source is neither local nor by that device.",
    advice: Some(
        "Let the route to the source lead through the device that its packets come in by, or loosen the filter \
         there: rp_filter=2 asks only for a route by any device, 0 for none. The larger of net.ipv4.conf.all and \
         net.ipv4.conf.DEVICE counts.",
    ),
    occurs: "Every kernel and dataplane, IPv4 only; for the answer too, on the pod's or the tunnel's device.",
    hooks: &[&[Hook::RouteMartian], &[Hook::KfreeSkb]],
    find: rp_filter,
};

pub(super) const MARTIAN: Row = Row {
    cause: Cause::RouteMartian,
    says: "The packet has an address that it cannot have: its source is one of this node's own, or source or \
           destination is loopback, broadcast or multicast.",
    proof: "ip_handle_martian_source was called for the packet, it was freed at once, and not by the reverse path \
            filter; or it was freed with a reason that says so (7.x).",
    advice: Some(
        "Find out who sends with this address: a duplicate of one of this node's addresses, a pod that reaches \
         itself through its own service without masquerade, or a rule that translates to 127.0.0.0/8 without \
         route_localnet.",
    ),
    occurs: "Every kernel and dataplane, IPv4 only. A destination that cannot be is told on 7.x only.",
    hooks: &[&[Hook::RouteMartian], &[Hook::KfreeSkb]],
    find: martian,
};

/// Why the source of a packet was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    ReversePath,
    Martian,
}

fn rp_filter(case: &Case<'_>) -> Option<Proof> {
    let end = end(case)?;
    if refusal(case, end)? != Refusal::ReversePath {
        return None;
    }
    let source = end.event.tuple.saddr.ip();
    let device = device(end);
    let way = way_to(case, end, source);
    let back = match way {
        Some(Route::Found(way)) => match &way.device {
            Some(other) => format!("the way back to {source} leads through {other}"),
            None => format!("the way back to {source} is another one"),
        },
        Some(Route::None(_)) => format!("there is no way back to {source}"),
        None => format!("the way back to {source} is another one, or there is none"),
    };
    let mut evidence = settings(case, end);
    evidence.extend(way_evidence(case, end, source));
    evidence.extend(evidence::discarded(end, case.facts));
    Some(Proof {
        explanation: format!(
            "The {} came in by {device}, but {back}: the reverse path filter (rp_filter) discarded it.",
            packet(end)
        ),
        evidence,
    })
}

fn martian(case: &Case<'_>) -> Option<Proof> {
    let end = end(case)?;
    if refusal(case, end)? != Refusal::Martian {
        return None;
    }
    let tuple = &end.event.tuple;
    let (source, destination) = (tuple.saddr.ip(), tuple.daddr.ip());
    let why = if cannot_be_destination(case, end) {
        format!("its destination {destination} is no address that a packet from elsewhere can have")
    } else if is_local(way_to(case, end, source)) {
        format!("its source {source} is an address of the receiver itself")
    } else {
        format!("its source {source} is no address that a packet from elsewhere can have")
    };
    let mut evidence = vec![Evidence::seen("source", source.to_string(), end.event.hook)];
    evidence.extend(way_evidence(case, end, source));
    evidence.extend(settings(case, end));
    evidence.extend(evidence::discarded(end, case.facts));
    Some(Proof {
        explanation: format!(
            "The {} came in by {} and was discarded as a martian: {why}.",
            packet(end),
            device(end)
        ),
        evidence,
    })
}

/// Why the packet's source was refused, if it was. `None` also where what is known does not tell.
fn refusal(case: &Case<'_>, end: &Step) -> Option<Refusal> {
    let reason = reason(case, end);
    if reason == Some(RPFILTER) {
        return Some(Refusal::ReversePath);
    }
    if reason.is_some_and(|reason| MARTIANS.contains(&reason)) {
        return Some(Refusal::Martian);
    }
    let (_, settings) = told(case, Hook::RouteMartian, end)?;
    if !freed_in(case, end, &INPUT) {
        return None;
    }
    // A kernel that has the filter's own reason gives it.
    let mut reasons = case.facts.drop_reasons.values();
    if reason.is_some() && reasons.any(|known| known == RPFILTER) {
        return Some(Refusal::Martian);
    }
    without_reason(case, end, settings)
}

/// Where the kernel gives no reason: the reverse path filter refuses only if it is on, and never an address that is
/// the node's own (`__fib_validate_source`, `net/ipv4/fib_frontend.c`, 3.10 to 7.3).
fn without_reason(case: &Case<'_>, end: &Step, settings: &record::Route) -> Option<Refusal> {
    let known = route::RP_FILTER | route::RP_FILTER_ALL;
    if settings.have & known != known {
        return None;
    }
    let source = end.event.tuple.saddr.ip();
    if settings.rp_filter.max(settings.rp_filter_all) == 0 || cannot_be_source(source) {
        return Some(Refusal::Martian);
    }
    match way_to(case, end, source)? {
        Route::Found(way) if way.is_local() => {
            let martian = settings.have & route::ACCEPT_LOCAL != 0 && settings.accept_local == 0;
            martian.then_some(Refusal::Martian)
        }
        Route::Found(way) if !way.is_unicast() => Some(Refusal::Martian),
        // What leads through the device that the packet came in by contradicts the refusal: it has changed since.
        Route::Found(way) if way.device == end.event.dev.get() => None,
        Route::Found(_) | Route::None(_) => Some(Refusal::ReversePath),
    }
}

/// `rp_filter` as it was when the packet's source was refused.
fn settings(case: &Case<'_>, end: &Step) -> Vec<Evidence> {
    let Some((step, settings)) = told(case, Hook::RouteMartian, end) else {
        return Vec::new();
    };
    let own = format!("net.ipv4.conf.{}.rp_filter", device(step));
    [
        (route::RP_FILTER, own, settings.rp_filter),
        (
            route::RP_FILTER_ALL,
            "net.ipv4.conf.all.rp_filter".to_owned(),
            settings.rp_filter_all,
        ),
    ]
    .into_iter()
    .filter(|(bit, ..)| settings.have & bit != 0)
    .map(|(_, what, value)| Evidence::seen(what, value.to_string(), step.event.hook))
    .collect()
}

fn is_local(way: Option<&Route>) -> bool {
    matches!(way, Some(Route::Found(way)) if way.is_local())
}

/// Is the destination what was refused? Only 7.x says so.
fn cannot_be_destination(case: &Case<'_>, end: &Step) -> bool {
    match reason(case, end) {
        Some("IP_INVALID_DEST") => true,
        Some("IP_LOCALNET") => end.event.tuple.daddr.ip().is_loopback(),
        _ => false,
    }
}

/// Addresses that `ip_route_input_slow` refuses without a look at the tables.
fn cannot_be_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_loopback() || v4.octets()[0] == 0,
        IpAddr::V6(_) => false,
    }
}
