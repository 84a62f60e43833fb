//! The client's ACK: accepted, dropped, reset or late.

use tracer::{decode::event::Payload, diagnose::cause::Cause, flow::fate::Fate};
use tracer_common::{
    hook::Hook,
    record::{Drop, Socket},
    tcp::Part,
};

use crate::story::{MS, NODE, PATIENCE, POD, Story, has, translated};

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
fn a_syn_ack_that_is_retransmitted_after_the_ack_is_a_stall() {
    let mut story = Story::new();
    story.served(MS);
    let mut fates = Vec::new();
    story.engine.poll(500 * MS, |_, fate| fates.push(fate));
    story.answered(1_001 * MS);
    story.engine.poll(1_100 * MS, |_, fate| fates.push(fate));
    assert_eq!(fates, [Fate::Established, Fate::Stalled]);
}
