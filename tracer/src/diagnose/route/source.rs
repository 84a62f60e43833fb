//! The source of a packet was refused: by the reverse path filter, or as a martian.

use std::net::IpAddr;

use tracer_common::{
    hook::Hook,
    record::{self, route},
};

use super::freed::{self, device, packet, read_by, reason, route_evidence};
use crate::{
    diagnose::{
        case::{Case, Proof},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
    facts::route::Route,
    flow::model::Step,
};

/// The functions in which the kernel frees a packet whose route lookup failed (`net/ipv4/ip_input.c`, 3.10 to 7.3; which of
/// them depends on what the compiler inlined).
const INPUT: [&str; 6] = [
    "ip_rcv_finish",
    "ip_rcv_finish_core",
    "ip_list_rcv_finish",
    "ip_sublist_rcv",
    "ip_sublist_rcv_finish",
    "ip_rcv",
];

/// The drop reason of the reverse path filter, since 5.18.
const RPFILTER: &str = "IP_RPFILTER";

/// The drop reasons of martians, since 6.13.
const MARTIANS: [&str; 4] = [
    "IP_LOCAL_SOURCE",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_INVALID_DEST",
];

pub(super) const RP_FILTER: Row = Row {
    cause: Cause::RouteRpFilter,
    group: Group::Network,
    summary: "The reverse path filter dropped the packet: the route back to its source does not lead through the device it came \
              in through.",
    proof: "The packet was freed with the reason IP_RPFILTER. Where the kernel gives no reasons: \
            ip_handle_martian_source was called for it while rp_filter was on for the device, it was freed at once, and the \
            route to its source is neither local nor through that device.",
    advice: Some(
        "Make the route to the source lead through the device its packets come in through, or relax the filter there: \
         rp_filter=2 requires only a route through any device, 0 requires none. The larger of the device's value and that of \
         net.ipv4.conf.all counts.",
    ),
    scope: "Every kernel and dataplane, IPv4 only; also for the SYN-ACK, on the device of the pod or the tunnel.",
    hooks: &[&[Hook::RouteMartian], &[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: rp_filter,
};

pub(super) const MARTIAN: Row = Row {
    cause: Cause::RouteMartian,
    group: Group::Network,
    summary: "The packet has an impossible address: its source is one of this node's own, or source or destination is loopback, \
              broadcast or multicast.",
    proof: "ip_handle_martian_source was called for the packet, it was freed at once, and not by the reverse path filter; or it \
            was freed with the drop reason of a martian (6.13 and later).",
    advice: Some(
        "Find out where this address comes from: a duplicate of one of this node's addresses, a pod that reaches itself through its own \
         service without masquerade, or a rule that translates to 127.0.0.0/8 without route_localnet.",
    ),
    scope: "Every kernel and dataplane, IPv4 only. An impossible destination is detectable since 6.13, by its drop reason.",
    hooks: &[&[Hook::RouteMartian], &[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: martian,
};

/// Why the source of a packet was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    ReversePath,
    Martian,
}

fn rp_filter(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    if refusal(case, freed)? != Refusal::ReversePath {
        return None;
    }
    let source = freed.event.tuple.saddr.ip();
    let device = device(freed);
    let lookup = freed::of_source(case, freed);
    let back = match case.facts.route(&lookup) {
        Some(Route::Found(way)) => match &way.device {
            Some(other) => format!("the route back to {source} leads through {other}"),
            None => format!("the route back to {source} does not lead through that device"),
        },
        Some(Route::None(_)) => format!("there is no route back to {source}"),
        None => format!("the route back to {source} does not lead through that device, or there is none"),
    };
    let mut evidence = settings(case, freed);
    evidence.extend(route_evidence(case, &lookup));
    evidence.extend(evidence::dropped(freed, case.facts));
    Some(Proof::new(
        format!(
            "The {} came in through {device}, but {back}: the reverse path filter (rp_filter) dropped it.",
            packet(freed)
        ),
        evidence,
    ))
}

fn martian(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    // IPVS refuses such a source too, and says so in the same place.
    if case.may_hide_ipvs() && case.flow.client().ip().is_loopback() {
        return None;
    }
    if refusal(case, freed)? != Refusal::Martian {
        return None;
    }
    let tuple = &freed.event.tuple;
    let (source, destination) = (tuple.saddr.ip(), tuple.daddr.ip());
    let lookup = freed::of_source(case, freed);
    let why = if is_impossible_destination(case, freed) {
        format!("no packet from outside can have the destination {destination}")
    } else if is_local(case.facts.route(&lookup)) {
        format!("its source {source} is the receiver's own address")
    } else {
        format!("no packet from outside can have the source {source}")
    };
    let mut evidence = vec![Evidence::seen(Key::Source, source.to_string(), freed.event.hook)];
    evidence.extend(route_evidence(case, &lookup));
    evidence.extend(settings(case, freed));
    evidence.extend(evidence::dropped(freed, case.facts));
    Some(Proof::new(
        format!(
            "The {} came in through {} and was dropped as a martian: {why}.",
            packet(freed),
            device(freed)
        ),
        evidence,
    ))
}

/// The reason for which the packet's source was refused; `None` if it was not, or if the known facts do not decide.
fn refusal(case: &Case<'_>, freed: &Step) -> Option<Refusal> {
    let reason = reason(case, freed);
    if reason == Some(RPFILTER) {
        return Some(Refusal::ReversePath);
    }
    if reason.is_some_and(|reason| MARTIANS.contains(&reason)) {
        return Some(Refusal::Martian);
    }
    let (_, settings) = read_by(case, Hook::RouteMartian, freed)?;
    if !freed::is_in(case, freed, &INPUT) {
        return None;
    }
    // A kernel that has a drop reason for the filter gives it.
    let mut reasons = case.facts.drop_reasons.values();
    if reason.is_some() && reasons.any(|known| known == RPFILTER) {
        return Some(Refusal::Martian);
    }
    without_reason(case, freed, settings)
}

/// The refusal where the kernel gives no reason: the reverse path filter refuses only if it is on, and never an address of
/// the node's own (`__fib_validate_source`, `net/ipv4/fib_frontend.c`, 3.10 to 7.3).
fn without_reason(case: &Case<'_>, freed: &Step, settings: &record::Route) -> Option<Refusal> {
    let known = route::RP_FILTER | route::RP_FILTER_ALL;
    if settings.have & known != known {
        return None;
    }
    let source = freed.event.tuple.saddr.ip();
    if settings.rp_filter.max(settings.rp_filter_all) == 0 || is_impossible_source(source) {
        return Some(Refusal::Martian);
    }
    match case.facts.route(&freed::of_source(case, freed))? {
        Route::Found(way) if way.is_local() => {
            let martian = settings.have & route::ACCEPT_LOCAL != 0 && settings.accept_local == 0;
            martian.then_some(Refusal::Martian)
        }
        Route::Found(way) if !way.is_unicast() => Some(Refusal::Martian),
        // A route through the packet's own device contradicts the refusal: it has changed since.
        Route::Found(way) if way.device == freed.event.dev.get() => None,
        Route::Found(_) | Route::None(_) => Some(Refusal::ReversePath),
    }
}

/// `rp_filter` at the moment when the packet's source was refused.
fn settings(case: &Case<'_>, freed: &Step) -> Vec<Evidence> {
    let Some((step, settings)) = read_by(case, Hook::RouteMartian, freed) else {
        return Vec::new();
    };
    let own = format!(
        "{} (net.ipv4.conf.{}.rp_filter)",
        settings.rp_filter,
        device(step)
    );
    [
        (route::RP_FILTER, Key::RpFilter, own),
        (
            route::RP_FILTER_ALL,
            Key::RpFilterAll,
            settings.rp_filter_all.to_string(),
        ),
    ]
    .into_iter()
    .filter(|(bit, ..)| settings.have & bit != 0)
    .map(|(_, key, value)| Evidence::seen(key, value, step.event.hook))
    .collect()
}

fn is_local(route: Option<&Route>) -> bool {
    matches!(route, Some(Route::Found(way)) if way.is_local())
}

/// Whether the destination was refused. Only kernels since 6.13 show that.
fn is_impossible_destination(case: &Case<'_>, freed: &Step) -> bool {
    match reason(case, freed) {
        Some("IP_INVALID_DEST") => true,
        Some("IP_LOCALNET") => freed.event.tuple.daddr.ip().is_loopback(),
        _ => false,
    }
}

/// Addresses that `ip_route_input_slow` refuses before it looks at the routing tables.
fn is_impossible_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_loopback() || v4.octets()[0] == 0,
        IpAddr::V6(_) => false,
    }
}
