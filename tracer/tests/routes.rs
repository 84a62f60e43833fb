//! Packets that the routing and neighbour layers drop.

#[path = "routes/neighbours.rs"]
mod neighbours;
mod story;

use std::net::IpAddr;

use story::{MS, NODE, POD, Story, has, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{
        route::{Route, RouteEntry},
        route_lookup::RouteLookup,
    },
    flow::{fate::Fate, model::Flow},
};
use tracer_common::{
    hook::Hook,
    record::{self, Icmp, route},
    tcp::Part,
    tuple::Tuple,
};

const SYN: (Part, u64) = (Part::Syn, 0xabc);
const ANSWER: (Part, u64) = (Part::SynAck, 0xdef);

const IN_ROUTING: u64 = 1;
const IN_IP_ERROR: u64 = 2;
const IN_NEIGHBOUR: u64 = 3;
const IN_TCP: u64 = 4;
const IN_FINISH_OUTPUT: u64 = 5;

const NOT_SPECIFIED: u32 = 2;
const IP_RPFILTER: u32 = 3;
const NEIGH_CREATEFAIL: u32 = 4;
const IP_LOCALNET: u32 = 5;
const NO_REASON: u32 = u32::MAX;

/// A story on a kernel with drop reasons, or on one without.
fn story(reasons: bool) -> Story {
    let mut story = Story::new();
    let symbols = [
        (IN_ROUTING, "ip_rcv_finish_core.isra.0+0x234"),
        (IN_IP_ERROR, "ip_error+0x97"),
        (IN_NEIGHBOUR, "neigh_invalidate+0x84"),
        (IN_TCP, "tcp_v4_rcv+0x9a"),
        (IN_FINISH_OUTPUT, "ip_finish_output2+0x3b4"),
    ];
    story.facts.symbols = symbols
        .into_iter()
        .map(|(place, name)| (place, name.to_owned()))
        .collect();
    if reasons {
        let names = [
            (NOT_SPECIFIED, "NOT_SPECIFIED"),
            (IP_RPFILTER, "IP_RPFILTER"),
            (NEIGH_CREATEFAIL, "NEIGH_CREATEFAIL"),
            (IP_LOCALNET, "IP_LOCALNET"),
            (77, "TCP_INVALID_SYN"),
        ];
        story.facts.drop_reasons = names
            .into_iter()
            .map(|(number, name)| (number, name.to_owned()))
            .collect();
    }
    story
}

fn client() -> IpAddr {
    IpAddr::from([10, 0, 0, 2])
}

fn route(kind: u8, device: &str) -> Route {
    Route::Found(RouteEntry {
        kind,
        device: Some(device.to_owned()),
        gateway: None,
    })
}

fn drop(location: u64, reason: u32) -> Payload {
    Payload::Drop(record::Drop {
        location,
        reason,
        reserved: 0,
    })
}

/// The settings that `ip_handle_martian_source` found.
fn settings(rp_filter: i32, accept_local: u32) -> Payload {
    Payload::Route(record::Route {
        have: route::RP_FILTER | route::RP_FILTER_ALL | route::ACCEPT_LOCAL,
        rp_filter,
        accept_local,
        ..record::Route::default()
    })
}

/// The error of the route with which `ip_error` was called.
fn no_route(forwarding: i32, error: i32) -> Payload {
    Payload::Route(record::Route {
        have: route::FORWARDING | route::FORWARDING_ALL | route::ERROR,
        forwarding,
        forwarding_all: forwarding,
        error,
        ..record::Route::default()
    })
}
fn on_node(tuple: Tuple) -> (Tuple, u32) {
    (tuple, NODE)
}

/// Routing rejects the source of the SYN, which is freed at `location`.
fn refused(story: &mut Story, found: Payload, (location, reason): (u64, u32)) -> (Flow, Fate, Diagnosis) {
    let syn = on_node(original(story.port));
    story.arrives(MS);
    story.seen(MS + 1, Hook::RouteMartian, SYN, syn, found);
    story.seen(MS + 2, Hook::KfreeSkb, SYN, syn, drop(location, reason));
    story.only()
}

fn cause_of(outcome: &(Flow, Fate, Diagnosis)) -> (Fate, Option<Cause>) {
    (outcome.1, outcome.2.cause)
}

const DROPPED_BY_FILTER: (Fate, Option<Cause>) = (Fate::Dropped, Some(Cause::RouteRpFilter));
const MARTIAN: (Fate, Option<Cause>) = (Fate::Dropped, Some(Cause::RouteMartian));
const UNKNOWN: (Fate, Option<Cause>) = (Fate::Dropped, Some(Cause::Unknown));

#[test]
fn the_drop_reason_separates_the_reverse_path_filter_from_a_martian() {
    let mut filtered = story(true);
    filtered.facts.routes.insert((NODE, client()), route(1, "eth1"));
    let outcome = refused(&mut filtered, settings(1, 0), (IN_ROUTING, IP_RPFILTER));
    assert_eq!(cause_of(&outcome), DROPPED_BY_FILTER);
    assert!(
        has(&outcome.2, "rp-filter", "1 (net.ipv4.conf.eth0.rp_filter)"),
        "{:?}",
        outcome.2
    );
    assert!(
        has(&outcome.2, "route", "10.0.0.2: unicast dev eth1"),
        "{:?}",
        outcome.2
    );

    // The filter is on, but did not drop it.
    let outcome = refused(&mut story(true), settings(1, 0), (IN_ROUTING, NOT_SPECIFIED));
    assert_eq!(cause_of(&outcome), MARTIAN);
    let outcome = refused(&mut story(true), settings(0, 0), (IN_ROUTING, IP_LOCALNET));
    assert_eq!(cause_of(&outcome), MARTIAN);
}

/// The lookup of the reverse path filter for the SYN.
fn of_source(mark: Option<u32>) -> RouteLookup {
    RouteLookup {
        netns: NODE,
        to: client(),
        from: Some(IpAddr::from([10, 0, 0, 1])),
        input: Some(2),
        mark,
        is_reverse: true,
    }
}

#[test]
fn the_route_is_that_of_the_lookup_with_the_mark_of_the_packet() {
    let marked = |mark: Option<u32>| {
        let mut story = story(false);
        let routes = [
            (of_source(Some(7)), Some(route(1, "eth1"))),
            (of_source(Some(0)), Some(route(1, "eth0"))),
            (of_source(None), None),
        ];
        story.facts.looked_up.extend(routes);
        let syn = on_node(original(story.port));
        story.arrives(MS);
        if let Some(mark) = mark {
            let mark = Payload::Mark(record::Mark { mark, reserved: 0 });
            story.seen(MS + 1, Hook::RouteMartian, SYN, syn, mark);
        }
        story.seen(MS + 1, Hook::RouteMartian, SYN, syn, settings(1, 0));
        story.seen(MS + 2, Hook::KfreeSkb, SYN, syn, drop(IN_ROUTING, NO_REASON));
        let outcome = story.only();
        let is_step = |flow: &Flow| {
            flow.steps
                .iter()
                .any(|step| matches!(step.event.payload, Payload::Mark(_)))
        };
        assert!(!is_step(&outcome.0));
        outcome
    };
    let outcome = marked(Some(7));
    assert_eq!(cause_of(&outcome), DROPPED_BY_FILTER);
    let evidence = "10.0.0.2 (mark 0x7): unicast dev eth1";
    assert!(has(&outcome.2, "route", evidence), "{:?}", outcome.2);
    let advice = outcome.2.advice.as_deref().expect("advice");
    assert!(
        advice.contains("`ip route get 10.0.0.2 from 10.0.0.1 mark 0x7`"),
        "{advice}"
    );
    // Without its mark, the packet has a route through the device that it came in through.
    assert_eq!(cause_of(&marked(Some(0))), UNKNOWN);
    assert_eq!(cause_of(&marked(None)), UNKNOWN);
}

#[test]
fn a_route_that_depends_on_more_than_is_known_is_named_as_such() {
    let mut story = story(true);
    story.facts.looked_up.insert(of_source(None), None);
    let outcome = refused(&mut story, settings(1, 0), (IN_ROUTING, IP_RPFILTER));
    assert_eq!(cause_of(&outcome), DROPPED_BY_FILTER);
    assert!(has(&outcome.2, "route", "10.0.0.2: not known"), "{:?}", outcome.2);
    assert!(outcome.2.explanation.contains("or there is none"));
}

#[test]
fn without_drop_reasons_the_settings_and_the_route_back_decide() {
    let on = || settings(2, 0);
    let place = (IN_ROUTING, NO_REASON);
    let with = |back: Option<Route>, found: Payload| {
        let mut story = story(false);
        story
            .facts
            .routes
            .extend(back.map(|back| ((NODE, client()), back)));
        cause_of(&refused(&mut story, found, place))
    };
    assert_eq!(with(Some(route(1, "eth1")), on()), DROPPED_BY_FILTER);
    assert_eq!(with(Some(Route::None(101)), on()), DROPPED_BY_FILTER);
    assert_eq!(with(Some(route(2, "lo")), on()), MARTIAN);
    assert_eq!(with(Some(route(3, "eth1")), on()), MARTIAN);
    // The filter is off, so it did not drop the SYN, whatever the route back.
    assert_eq!(with(None, settings(0, 0)), MARTIAN);
    // The node accepts its own address as a source, but the filter may still drop it.
    assert_eq!(with(Some(route(2, "lo")), settings(1, 1)), UNKNOWN);
    // The route back uses the device that the SYN arrived on, so it has changed since.
    assert_eq!(with(Some(route(1, "eth0")), on()), UNKNOWN);
    assert_eq!(with(None, on()), UNKNOWN);
    let unread = Payload::Route(record::Route::default());
    assert_eq!(with(Some(route(1, "eth1")), unread), UNKNOWN);
}

#[test]
fn a_syn_that_is_freed_elsewhere_was_not_dropped_by_routing() {
    let outcome = refused(&mut story(true), settings(1, 0), (IN_TCP, NOT_SPECIFIED));
    assert_eq!(cause_of(&outcome), UNKNOWN);
    // Another packet's source was rejected.
    let mut story = story(true);
    let syn = on_node(original(story.port));
    story.arrives(MS);
    story.seen(MS + 1, Hook::RouteMartian, (Part::Syn, 7), syn, settings(1, 0));
    story.seen(MS + 2, Hook::KfreeSkb, SYN, syn, drop(IN_ROUTING, NOT_SPECIFIED));
    assert_eq!(cause_of(&story.only()), UNKNOWN);
}

#[test]
fn a_martian_in_the_pod_is_reported_although_the_node_delivered_the_syn() {
    let mut story = story(true);
    let delivered = (translated(story.port), POD);
    story.arrives(MS);
    story.reaches_pod(MS + 5);
    story.seen(MS + 10, Hook::RouteMartian, SYN, delivered, settings(0, 0));
    story.seen(
        MS + 11,
        Hook::KfreeSkb,
        SYN,
        delivered,
        drop(IN_ROUTING, NOT_SPECIFIED),
    );
    assert_eq!(
        cause_of(&story.only()),
        (Fate::Unanswered, Some(Cause::RouteMartian))
    );
}

#[test]
fn a_pod_without_the_address_is_not_a_router_with_forwarding_off() {
    let mut story = story(true);
    let delivered = (translated(story.port), POD);
    story.arrives(MS);
    story.reaches_pod(MS + 5);
    story.seen(MS + 10, Hook::RouteError, SYN, delivered, no_route(0, 113));
    story.seen(
        MS + 11,
        Hook::KfreeSkb,
        SYN,
        delivered,
        drop(IN_IP_ERROR, NOT_SPECIFIED),
    );
    let outcome = story.only();
    assert_eq!(cause_of(&outcome), (Fate::Unanswered, Some(Cause::BackendSilent)));
    assert!(
        outcome
            .2
            .explanation
            .contains("does not have the address 10.244.1.2"),
        "{}",
        outcome.2.explanation
    );
}

/// There is no route for the SYN after DNAT; `icmp_code` is that of the ICMP error to the client, if any.
fn unreachable(found: Payload, icmp_code: Option<u32>) -> (Flow, Fate, Diagnosis) {
    let mut story = story(true);
    let syn = on_node(translated(story.port));
    story.arrives(MS);
    story.seen(MS + 1, Hook::RouteError, SYN, syn, found);
    if let Some(code) = icmp_code {
        story.seen(
            MS + 2,
            Hook::IcmpSend,
            SYN,
            syn,
            Payload::Icmp(Icmp { icmp_type: 3, code }),
        );
    }
    story.seen(MS + 3, Hook::KfreeSkb, SYN, syn, drop(IN_IP_ERROR, NOT_SPECIFIED));
    story.only()
}

#[test]
fn the_error_of_the_route_shows_what_is_wrong_with_it() {
    let outcome = unreachable(no_route(1, 101), Some(0));
    assert_eq!(cause_of(&outcome), (Fate::Refused, Some(Cause::RouteUnreachable)));
    assert!(outcome.2.explanation.contains("there is no route to 10.244.1.2"));
    assert!(
        has(&outcome.2, "icmp-to-client", "network unreachable"),
        "{:?}",
        outcome.2
    );
    let outcome = unreachable(no_route(1, 22), None);
    assert_eq!(cause_of(&outcome), (Fate::Dropped, Some(Cause::RouteUnreachable)));
    assert!(outcome.2.explanation.contains("blackhole"));
    assert!(
        unreachable(no_route(1, 13), Some(13))
            .2
            .explanation
            .contains("prohibit route")
    );
}

#[test]
fn forwarding_off_and_no_route_are_different_causes() {
    let outcome = unreachable(no_route(0, 113), None);
    assert_eq!(
        cause_of(&outcome),
        (Fate::Dropped, Some(Cause::RouteForwardingOff))
    );
    assert!(
        has(&outcome.2, "forwarding", "0 (net.ipv4.conf.eth0.forwarding)"),
        "{:?}",
        outcome.2
    );
    // Unreadable values prove neither.
    let outcome = unreachable(Payload::Route(record::Route::default()), None);
    assert_eq!(cause_of(&outcome), UNKNOWN);
}

#[test]
fn an_answer_that_is_not_forwarded_is_a_drop_on_the_return_path() {
    let mut story = story(true);
    let answer = on_node(translated(story.port).reversed());
    story.arrives(MS);
    story.reaches_pod(MS + 5);
    story.listener_accepts(MS + 7);
    story.seen(MS + 8, Hook::NetifReceive, ANSWER, answer, Payload::Packet);
    story.seen(MS + 9, Hook::RouteError, ANSWER, answer, no_route(0, 113));
    story.seen(
        MS + 10,
        Hook::KfreeSkb,
        ANSWER,
        answer,
        drop(IN_IP_ERROR, NOT_SPECIFIED),
    );
    let outcome = story.only();
    assert_eq!(cause_of(&outcome), (Fate::Dropped, Some(Cause::ReturnDropped)));
    assert!(has(&outcome.2, "inner-cause", "route.forwarding-off"));
    assert_eq!(outcome.2.inner, Some(Cause::RouteForwardingOff));
    let advice = outcome.2.advice.expect("advice");
    assert!(advice.contains("`sysctl -w net.ipv4.ip_forward=1`"), "{advice}");
}
