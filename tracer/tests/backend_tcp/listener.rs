//! SYNs that the backend or its listener drops.

use tracer::{
    decode::event::Payload,
    diagnose::cause::Cause,
    facts::route::{Route, RouteEntry},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{Drop, Listener},
    tcp::Part,
};

use crate::story::{LISTENER, MS, POD, Story, has, translated};

const FULL: Listener = Listener {
    ack_backlog: 6,
    max_ack_backlog: 5,
    ..LISTENER
};

/// A SYN that reaches a listener, which drops it.
fn dropped_by_listener(story: &mut Story, at: u64, listener: Listener) {
    story.arrives(at);
    story.reaches_pod(at + 1);
    story.in_pod(
        at + 3,
        Hook::TcpConnRequest,
        Part::Syn,
        Payload::Listener(listener),
        1,
    );
}

fn cause_of(listener: Listener) -> Option<Cause> {
    let mut story = Story::new();
    dropped_by_listener(&mut story, MS, listener);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Unanswered);
    diagnosis.cause
}

#[test]
fn a_full_accept_queue_drops_syns() {
    let mut story = Story::new();
    dropped_by_listener(&mut story, MS, FULL);
    dropped_by_listener(&mut story, 1_001 * MS, FULL);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::TcpAcceptQueueFull))
    );
    assert!(
        has(&diagnosis, "accept-queue", "6 waiting, limit 5"),
        "{diagnosis:?}"
    );
}

#[test]
fn a_queue_at_its_limit_is_not_full() {
    let at_limit = Listener {
        ack_backlog: 5,
        ..FULL
    };
    assert_eq!(cause_of(at_limit), Some(Cause::Unknown));
    let unread = Listener {
        max_ack_backlog: u32::MAX,
        ..FULL
    };
    assert_eq!(cause_of(unread), Some(Cause::Unknown));
}

#[test]
fn a_listener_without_a_route_back_drops_syns() {
    let with_route = |listener: Listener, route: Option<Route>| {
        let mut story = Story::new();
        dropped_by_listener(&mut story, MS, listener);
        let client = translated(story.port).saddr.ip();
        story
            .facts
            .routes
            .extend(route.map(|route| ((POD, client), route)));
        story.only().2
    };
    // ENETUNREACH
    let diagnosis = with_route(LISTENER, Some(Route::None(101)));
    assert_eq!(diagnosis.cause, Some(Cause::RouteUnreachable));
    assert!(
        diagnosis.explanation.contains("it has no route back to"),
        "{diagnosis:?}"
    );
    assert!(has(&diagnosis, "route", "none: Network is unreachable"));
    // A full queue is a sufficient cause; a queue that was not read leaves the cause unknown.
    let cause = |listener| with_route(listener, Some(Route::None(101))).cause;
    assert_eq!(cause(FULL), Some(Cause::TcpAcceptQueueFull));
    let unread = Listener {
        ack_backlog: u32::MAX,
        ..LISTENER
    };
    assert_eq!(cause(unread), Some(Cause::Unknown));
    // There is a route, or none was looked up.
    let route = Route::Found(RouteEntry {
        kind: 1,
        device: None,
        gateway: None,
    });
    assert_eq!(with_route(LISTENER, Some(route)).cause, Some(Cause::Unknown));
    assert_eq!(with_route(LISTENER, None).cause, Some(Cause::Unknown));
}

#[test]
fn a_queue_that_empties_before_the_next_syn_costs_a_second() {
    let mut story = Story::new();
    dropped_by_listener(&mut story, MS, FULL);
    story.served(1_001 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::TcpAcceptQueueFull))
    );
    assert_eq!(flow.stall_ns(), Some(1_000 * MS));
}

#[test]
fn a_full_queue_that_dropped_nothing_is_no_cause() {
    // The listener's queue was over its limit, but its drop counter did not grow: the SYN-ACK was lost.
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.reaches_listener(3 * MS, FULL);
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
    // The counter grew for another SYN: this one was answered.
    let mut story = Story::new();
    dropped_by_listener(&mut story, MS, FULL);
    story.answered(2 * MS);
    assert_eq!(story.only().2.cause, Some(Cause::ClientSilent));
}

#[test]
fn a_full_syn_queue_is_a_cause_only_without_syn_cookies() {
    let longest = Listener {
        syn_queue: 128,
        syncookies: 0,
        ..LISTENER
    };
    assert_eq!(cause_of(longest), Some(Cause::TcpSynQueueFull));
    let with_cookies = Listener {
        syncookies: 1,
        ..longest
    };
    assert_eq!(cause_of(with_cookies), Some(Cause::Unknown));
    let unread = Listener {
        syncookies: u32::MAX,
        ..longest
    };
    assert_eq!(cause_of(unread), Some(Cause::Unknown));
    let room = Listener {
        syn_queue: 127,
        ..longest
    };
    assert_eq!(cause_of(room), Some(Cause::Unknown));
}

#[test]
fn the_last_quarter_of_the_syn_queue_is_reserved_for_proven_clients() {
    let quarter = Listener {
        syn_queue: 13,
        max_syn_backlog: 16,
        syncookies: 0,
        ..LISTENER
    };
    assert_eq!(cause_of(quarter), Some(Cause::TcpSynQueueFull));
    let three_quarters = Listener {
        syn_queue: 12,
        ..quarter
    };
    assert_eq!(cause_of(three_quarters), Some(Cause::Unknown));
}

#[test]
fn a_full_accept_queue_comes_before_a_full_syn_queue() {
    let both = Listener {
        syn_queue: 5,
        syncookies: 0,
        ..FULL
    };
    assert_eq!(cause_of(both), Some(Cause::TcpAcceptQueueFull));
}

#[test]
fn lost_records_rule_out_causes_that_rely_on_something_not_seen() {
    let mut story = Story::new();
    story.facts.lost_ns = Some(2 * MS);
    dropped_by_listener(&mut story, MS, FULL);
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
}

#[test]
fn a_pod_that_drops_the_syn_itself_is_silent_and_the_function_is_named() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(MS + 2);
    story
        .facts
        .symbols
        .insert(0x1234, "nft_do_chain+0x40e".to_owned());
    let drop = Payload::Drop(Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    });
    let tuple = translated(story.port);
    story.see(MS + 4, Hook::KfreeSkb, Part::Syn, tuple, POD, drop);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
    let explanation = diagnosis.explanation;
    assert!(
        explanation.contains("dropped inside that network namespace, in nft_do_chain+0x40e"),
        "{explanation}"
    );
}
