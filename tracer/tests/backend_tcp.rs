//! What the backend's TCP does with the SYN and with the client's ACK.

mod story;

use story::{LISTENER, MS, NODE, PATIENCE, POD, Story, has, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::cause::Cause,
    facts::route::{Route, RouteEntry},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{Drop, Listener, OPTIONS_LEN, Socket, TimeWait, time_wait},
    tcp::Part,
};

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

/// A handshake up to the client's ACK, which arrives at `at` + 30.
fn up_to_ack(story: &mut Story, at: u64) {
    story.served(at);
}

fn ack_accepted(story: &mut Story, at: u64) {
    let socket = Socket {
        sock: 1,
        ack_backlog: 0,
        max_ack_backlog: 5,
    };
    let tuple = translated(story.port);
    story.see(
        at,
        Hook::TcpSynRecvSock,
        Part::Ack,
        tuple,
        POD,
        Payload::Socket(socket),
    );
}

fn ack_refused(story: &mut Story, at: u64, ack_backlog: u32) {
    let socket = Socket {
        sock: 1,
        ack_backlog,
        max_ack_backlog: 5,
    };
    story.in_pod(at, Hook::TcpSynRecvSock, Part::Ack, Payload::Socket(socket), 0);
}

#[test]
fn an_ack_that_the_listener_drops_completes_no_handshake() {
    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    ack_refused(&mut story, 2 * MS, 6);
    let mut fates = Vec::new();
    story
        .engine
        .poll(2 * MS + PATIENCE - 1, |_, fate| fates.push(fate));
    assert_eq!(fates, []);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::TcpFinalAckDropped))
    );
    assert_eq!(flow.connect_ns(), None);
    assert!(
        has(&diagnosis, "accept-queue", "6 waiting, limit 5"),
        "{diagnosis:?}"
    );
}

#[test]
fn an_ack_that_is_accepted_later_is_a_stall() {
    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    ack_refused(&mut story, 2 * MS, 6);
    story.answered(1_002 * MS);
    ack_accepted(&mut story, 1_003 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::TcpFinalAckDropped))
    );
    assert_eq!((flow.stall_ns(), flow.synacks), (Some(1_001 * MS), 2));
}

#[test]
fn an_ack_that_is_lost_for_another_reason_has_an_unknown_cause() {
    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    ack_refused(&mut story, 2 * MS, 5);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Dropped, Some(Cause::Unknown)));
}

fn ack_dropped(story: &mut Story, at: u64, netns: u32) {
    let tuple = translated(story.port);
    story.see(
        at,
        Hook::KfreeSkb,
        Part::Ack,
        tuple,
        netns,
        Payload::Drop(Drop::default()),
    );
}

#[test]
fn an_ack_that_the_node_drops_completes_no_handshake_unless_it_was_a_copy() {
    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    ack_dropped(&mut story, 2 * MS, NODE);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Dropped, Some(Cause::Unknown)));
    assert!(has(&diagnosis, "dropped-in", ""), "{diagnosis:?}");

    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    ack_dropped(&mut story, MS + 40, NODE);
    ack_accepted(&mut story, MS + 50);
    // The copy was dropped a few microseconds before the listener accepted the ACK itself.
    assert_eq!(story.only().1, Fate::Established);
}

#[test]
fn a_listener_that_waits_for_data_may_drop_the_bare_ack() {
    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    ack_dropped(&mut story, 2 * MS, POD);
    assert_eq!(story.only().1, Fate::Established);
}

#[test]
fn an_ack_that_is_answered_with_rst_is_a_refusal() {
    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    ack_refused(&mut story, 2 * MS, 6);
    let (tuple, socket) = (
        translated(story.port),
        Socket {
            sock: 1,
            ..Socket::default()
        },
    );
    story.see(
        2 * MS + 5,
        Hook::TcpSendReset,
        Part::Ack,
        tuple,
        POD,
        Payload::Socket(socket),
    );
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::TcpFinalAckDropped))
    );
}

#[test]
fn an_ack_that_the_backend_resets_for_no_visible_reason_has_an_unknown_cause() {
    let mut story = Story::new();
    up_to_ack(&mut story, MS);
    let tuple = translated(story.port);
    let socket = Payload::Socket(Socket {
        sock: 1,
        ..Socket::default()
    });
    story.see(2 * MS, Hook::TcpSendReset, Part::Ack, tuple, POD, socket);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Refused, Some(Cause::Unknown)));
    assert!(diagnosis.explanation.contains("the client's ACK with RST"));
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
        explanation.contains("dropped inside its network namespace, in nft_do_chain+0x40e"),
        "{explanation}"
    );
}

#[test]
fn a_syn_ack_that_is_retransmitted_after_the_ack_is_a_stall() {
    let mut story = Story::new();
    story.served(MS);
    let mut fates = Vec::new();
    story.engine.poll(500 * MS, |_, fate| fates.push(fate));
    story.answered(1_001 * MS);
    story.engine.poll(1_100 * MS, |_, fate| fates.push(fate));
    assert_eq!(fates, [Fate::Established, Fate::Stalled]);
}

/// The SYN's TCP options, with this timestamp.
fn options(timestamp: Option<u32>) -> ([u8; OPTIONS_LEN], u32) {
    let mut out = [0; OPTIONS_LEN];
    out[..4].copy_from_slice(&[2, 4, 5, 0xb4]);
    let Some(timestamp) = timestamp else {
        return (out, 4);
    };
    out[4..8].copy_from_slice(&[4, 2, 8, 10]);
    out[8..12].copy_from_slice(&timestamp.to_be_bytes());
    (out, 20)
}

/// The `TIME_WAIT` socket of an ended connection. The story's SYNs have the sequence number 1.
fn old(rcv_nxt: u32, ts_recent: u32, timestamp: Option<u32>) -> TimeWait {
    let (options, options_len) = options(timestamp);
    TimeWait {
        sock: 1,
        have: time_wait::RCV_NXT | time_wait::TS_RECENT | time_wait::SUBSTATE | time_wait::OPTIONS,
        rcv_nxt,
        ts_recent,
        ts_recent_stamp: i32::from(ts_recent != 0),
        substate: time_wait::TIME_WAIT,
        options_len,
        options,
    }
}

fn meets(old: TimeWait, verdict: i32) -> (Fate, Option<Cause>) {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.in_pod(
        3 * MS,
        Hook::TcpTimewait,
        Part::Syn,
        Payload::TimeWait(old),
        verdict,
    );
    story.dropped_in_pod(4 * MS);
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis.cause)
}

#[test]
fn an_ended_connection_refuses_by_sequence_number_or_by_timestamp() {
    let silent = |cause| (Fate::Unanswered, Some(cause));
    let refused = silent(Cause::TcpTimewaitRefused);
    assert_eq!(meets(old(1000, 0, None), time_wait::ACK), refused);
    assert_eq!(meets(old(1000, 0, Some(70)), time_wait::ACK), refused);
    // An equal timestamp decides nothing.
    assert_eq!(meets(old(1000, 70, Some(70)), time_wait::SUCCESS), refused);
    assert_eq!(meets(old(1, 0, None), time_wait::ACK_OOW), refused);
    let rejected = silent(Cause::TcpTimestampRejected);
    assert_eq!(meets(old(1000, 71, Some(70)), time_wait::ACK), rejected);
    // The timestamp refuses it even with a newer sequence number.
    assert_eq!(
        meets(old(0u32.wrapping_sub(5), 71, Some(70)), time_wait::ACK),
        rejected
    );
}

#[test]
fn an_unexplained_refusal_by_an_ended_connection_has_an_unknown_cause() {
    let unknown = (Fate::Unanswered, Some(Cause::Unknown));
    // The sequence number is newer, and no timestamp refuses it.
    assert_eq!(meets(old(0u32.wrapping_sub(5), 0, None), time_wait::ACK), unknown);
    let unread = TimeWait {
        have: 0,
        ..old(1000, 71, Some(70))
    };
    assert_eq!(meets(unread, time_wait::ACK), unknown);
    // It accepted the SYN.
    assert_eq!(meets(old(1000, 69, Some(70)), time_wait::SYN), unknown);
}

#[test]
fn a_half_closed_connection_refuses_too() {
    let half_closed = TimeWait {
        substate: time_wait::FIN_WAIT2,
        ..old(0u32.wrapping_sub(5), 0, None)
    };
    assert_eq!(
        meets(half_closed, time_wait::ACK),
        (Fate::Unanswered, Some(Cause::TcpTimewaitRefused))
    );
}

#[test]
fn a_syn_that_an_ended_connection_accepts_bypasses_the_syn_queue_limit() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    let (old, full) = (
        old(1000, 69, Some(70)),
        Listener {
            syn_queue: 128,
            syncookies: 0,
            ..LISTENER
        },
    );
    story.in_pod(
        3 * MS,
        Hook::TcpTimewait,
        Part::Syn,
        Payload::TimeWait(old),
        time_wait::SYN,
    );
    story.in_pod(
        4 * MS,
        Hook::TcpConnRequest,
        Part::Syn,
        Payload::Listener(full),
        1,
    );
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
}

#[test]
fn a_client_that_an_ended_connection_refuses_retries_at_once() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.in_pod(
        3 * MS,
        Hook::TcpTimewait,
        Part::Syn,
        Payload::TimeWait(old(1000, 0, None)),
        time_wait::ACK,
    );
    story.dropped_in_pod(4 * MS);
    let reset = original(story.port);
    story.packet(5 * MS, Hook::NetifReceive, Part::Rst, reset, NODE);
    story.served(13 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::TcpTimewaitRefused))
    );
    assert_eq!(flow.stall_ns(), Some(12 * MS));
}
