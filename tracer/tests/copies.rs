//! Packets that the network duplicates: a copy is not a retransmission, so it neither is a stall nor explains
//! one.

mod story;

use story::{MS, NODE, POD, Story, entry, original, translated};
use tracer::{decode::event::Payload, diagnose::cause::Cause, flow::fate::Fate};
use tracer_common::{
    hook::Hook,
    record::{Drop, IpvsConn, ipvs_conn},
    tcp::Part,
    uapi::verdict::{NF_DROP, NF_STOLEN},
};

/// The netns of a client on this node.
const CLIENT: u32 = 3;
/// The `sk_buff` of a copy.
const COPY: u64 = 0xdef;

/// The SYN arrives in another `sk_buff`.
fn copy_arrives(story: &mut Story, at: u64) {
    let place = (original(story.port), NODE);
    story.seen(at, Hook::NetifReceive, (Part::Syn, COPY), place, Payload::Packet);
}

/// The copy is forwarded to the pod.
fn copy_reaches_pod(story: &mut Story, at: u64) {
    let tuple = translated(story.port);
    for (hook, netns) in [(Hook::DevStartXmit, NODE), (Hook::NetifReceive, POD)] {
        story.seen(at, hook, (Part::Syn, COPY), (tuple, netns), Payload::Packet);
    }
}

/// The SYN is forwarded to the pod by a new IPVS entry.
fn goes_on(story: &mut Story, at: u64) {
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.lookup(at + 1, IpvsConn::default());
    });
    story.reaches_pod(at + 2);
}

#[test]
fn a_duplicated_syn_is_no_stall() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    story.listener_accepts(2 * MS);
    story.answered(3 * MS);
    copy_reaches_pod(&mut story, 3 * MS);
    // The pod answers each of them.
    story.answered(4 * MS);
    story.acknowledged(5 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
    assert_eq!((flow.attempts.len(), flow.synacks), (2, 2));
    assert_eq!(flow.stall_ns(), None);
}

#[test]
fn a_duplicated_syn_ack_is_no_stall() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.answered(2 * MS);
    story.answered(2 * MS + 20_000);
    story.acknowledged(30 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
}

#[test]
fn the_answer_to_a_delayed_copy_is_no_stall() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.listener_accepts(2 * MS);
    story.answered(3 * MS);
    // The copy, which reaches the pod only after the ACK has reached the node.
    copy_arrives(&mut story, 85 * MS);
    let tuple = translated(story.port);
    story.acknowledged(258 * MS);
    copy_reaches_pod(&mut story, 263 * MS);
    story.answered(263 * MS + 40_000);
    story.packet(338 * MS, Hook::TcpSynRecvSock, Part::Ack, tuple, POD);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Established, None),
        "{diagnosis:?}"
    );
}

#[test]
fn a_copy_of_the_syn_after_the_ack_changes_nothing() {
    for late in [100, 400] {
        let mut story = Story::new();
        story.served(MS);
        let mut fates = Vec::new();
        story.engine.poll(80 * MS, |_, fate| fates.push(fate));
        copy_arrives(&mut story, late * MS);
        story.engine.poll(600 * MS, |_, fate| fates.push(fate));
        fates.dedup();
        assert_eq!(fates, [Fate::Established]);
    }
}

#[test]
fn repeated_answers_to_a_late_copy_are_no_stall() {
    for is_seen in [true, false] {
        let mut story = Story::new();
        story.served(MS);
        if is_seen {
            let tuple = translated(story.port);
            story.packet(2 * MS, Hook::TcpSynRecvSock, Part::Ack, tuple, POD);
        }
        // The connection has ended. A listener treats the copy as a new SYN; its SYN-ACKs get no answer.
        copy_arrives(&mut story, 40 * MS);
        let mut elsewhere = entry(3, 1, 1, 0);
        elsewhere.dport = 9090;
        story.syn(40 * MS, Hook::IpvsNatXmit, Payload::IpvsConn(elsewhere));
        story.answered(41 * MS);
        story.answered(1_041 * MS);
        let (flow, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
        assert_eq!(flow.backend().map(|backend| backend.port()), Some(8080));
    }
}

#[test]
fn a_late_answer_to_the_second_syn_costs_nothing_once_the_first_was_accepted() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.listener_accepts(2 * MS);
    story.arrives(1_001 * MS);
    story.answered(1_501 * MS);
    let tuple = translated(story.port);
    story.acknowledged(1_502 * MS);
    story.packet(1_503 * MS, Hook::TcpSynRecvSock, Part::Ack, tuple, POD);
    // The slow backend's answer to the second SYN.
    story.answered(2_501 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::BackendSlow)));
    assert_eq!(flow.stall_ns(), Some(1_000 * MS));
}

#[test]
fn a_syn_ack_retransmitted_although_the_ack_arrived_is_not_the_clients_fault() {
    let mut story = Story::new();
    story.served(MS);
    story.answered(1_001 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::Unknown)));
    assert!(diagnosis.explanation.contains("ACK came in"), "{diagnosis:?}");
}

#[test]
fn a_syn_that_arrives_a_second_later_is_a_retransmission() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    story.served(1_001 * MS);
    let (flow, fate, _) = story.only();
    assert_eq!((fate, flow.attempts.len()), (Fate::Stalled, 3));
    assert_eq!(flow.stall_ns(), Some(1_000 * MS));
}

#[test]
fn a_lost_answer_is_not_the_backends_fault_although_the_syn_was_duplicated() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    story.listener_accepts(2 * MS);
    story.answered(3 * MS);
    copy_reaches_pod(&mut story, 3 * MS);
    story.answered(4 * MS);
    // Neither reached the client.
    story.arrives(1_001 * MS);
    story.answered(1_002 * MS);
    story.acknowledged(1_003 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::ClientSilent))
    );
}

#[test]
fn a_dropped_syn_whose_copy_is_forwarded_costs_nothing() {
    let mut story = Story::new();
    story.expired_and_dropped(MS, entry(ipvs_conn::CLOSE, 1, 1, 0));
    copy_arrives(&mut story, MS + 20_000);
    copy_reaches_pod(&mut story, 2 * MS);
    story.answered(3 * MS);
    story.acknowledged(4 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
}

#[test]
fn the_outcome_of_the_forwarded_copy_counts() {
    let mut story = Story::new();
    story.expired_and_dropped(MS, entry(ipvs_conn::CLOSE, 1, 1, 0));
    copy_arrives(&mut story, MS + 20_000);
    copy_reaches_pod(&mut story, 2 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
}

#[test]
fn a_dropped_copy_is_not_the_end_of_the_syn() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    let dropped = Payload::Drop(Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    });
    let place = (original(story.port), NODE);
    story.seen(2 * MS, Hook::KfreeSkb, (Part::Syn, COPY), place, dropped);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
}

#[test]
fn a_syn_is_dropped_if_its_copy_is_dropped_too() {
    let mut story = Story::new();
    for _ in 0..2 {
        story.arrives(MS);
        story.ipvs(MS + 1, NF_DROP, |story| {
            story.lookup(MS + 1, entry(ipvs_conn::TIME_WAIT, 1, 0, 0));
        });
        story.dropped(MS + 2);
    }
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::IpvsDestUnavailable))
    );
    assert_eq!(flow.attempts.len(), 2);
}

#[test]
fn a_late_answer_freed_by_the_clients_tcp_was_not_dropped_on_the_node() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.listener_accepts(2 * MS);
    story.arrives(1_001 * MS);
    // A late answer to the first SYN, and the answer to the second. The first connects the client, which is on this node.
    let back = original(story.port).reversed();
    for (at, skb) in [(1_500, 0x100), (1_502, 0x200)] {
        story.answered(at * MS);
        story.seen(
            at * MS + 10,
            Hook::NetifReceive,
            (Part::SynAck, skb),
            (back, CLIENT),
            Payload::Packet,
        );
    }
    story.packet(
        1_503 * MS,
        Hook::NetifReceive,
        Part::SynAck,
        translated(story.port).reversed(),
        NODE,
    );
    let dropped = Payload::Drop(Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    });
    story.seen(
        1_504 * MS,
        Hook::KfreeSkb,
        (Part::SynAck, 0x200),
        (back, 0),
        dropped,
    );
    story.acknowledged(1_505 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::BackendSlow)));
}

/// A SYN that is forwarded and dropped inside TCP, where a packet has no device.
fn dropped_in_tcp(symbol: &str, reason: u32) -> Story {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.facts.symbols.insert(0x1234, symbol.to_owned());
    story.facts.drop_reasons.insert(61, "TCP_CLOSE".to_owned());
    let dropped = Payload::Drop(Drop {
        location: 0x1234,
        reason,
        reserved: 0,
    });
    let tuple = translated(story.port);
    story.see(2 * MS, Hook::KfreeSkb, Part::Syn, tuple, 0, dropped);
    story
}

#[test]
fn a_closing_socket_drops_the_syn_silently() {
    const FUNCTION: &str = "tcp_rcv_state_process+0xeb";
    let (_, fate, diagnosis) = dropped_in_tcp(FUNCTION, 61).only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::TcpOldConnection))
    );
    assert!(diagnosis.explanation.contains("was just closing"));
    // The function drops SYNs for other reasons too.
    let (_, _, diagnosis) = dropped_in_tcp(FUNCTION, 2).only();
    assert_eq!(diagnosis.cause, Some(Cause::Unknown));
}

#[test]
fn a_client_whose_syn_met_a_live_connection_retries_at_once() {
    // The client answers a bare ACK with RST, which ends the old connection.
    let mut story = dropped_in_tcp("tcp_validate_incoming+0x1", u32::MAX);
    let tuple = translated(story.port);
    copy_arrives(&mut story, 30 * MS);
    copy_reaches_pod(&mut story, 31 * MS);
    let what = Payload::Listener(story::LISTENER);
    story.seen(
        32 * MS,
        Hook::TcpConnRequest,
        (Part::Syn, COPY),
        (tuple, POD),
        what,
    );
    story.answered(33 * MS);
    story.acknowledged(35 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::TcpOldConnection))
    );
    assert!(
        diagnosis.explanation.contains("still has an open connection"),
        "{}",
        diagnosis.explanation
    );
    assert_eq!((flow.sent().count(), flow.stall_ns()), (2, Some(29 * MS)));
}
