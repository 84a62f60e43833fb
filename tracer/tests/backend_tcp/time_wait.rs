//! SYNs that meet the socket of an ended connection.

use tracer::{decode::event::Payload, diagnose::cause::Cause, flow::fate::Fate};
use tracer_common::{
    hook::Hook,
    record::{Listener, OPTIONS_LEN, TimeWait, time_wait},
    tcp::Part,
};

use crate::story::{LISTENER, MS, NODE, Story, original};

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
