//! The network delivers packets twice, and the client and the backend have done nothing: that is no stall, and explains
//! none.

mod story;

use story::{MS, NODE, POD, Story, entry, original, translated};
use tracer::{decode::event::Payload, diagnose::cause::Cause, flow::fate::Fate};
use tracer_common::{
    hook::Hook,
    record::{Drop, IpvsConn, ipvs_conn},
    tcp::Part,
    uapi::verdict::{NF_DROP, NF_STOLEN},
};

/// The netns of a client on this machine.
const CLIENT: u32 = 3;
/// The buffer of a copy.
const COPY: u64 = 0xdef;

/// A SYN in another buffer comes in.
fn copy_arrives(story: &mut Story, at: u64) {
    let way = (original(story.port), NODE);
    story.seen(at, Hook::NetifReceive, (Part::Syn, COPY), way, Payload::Packet);
}

/// The copy goes on to the pod.
fn copy_reaches_pod(story: &mut Story, at: u64) {
    let tuple = translated(story.port);
    for (hook, netns) in [(Hook::DevStartXmit, NODE), (Hook::NetifReceive, POD)] {
        story.seen(at, hook, (Part::Syn, COPY), (tuple, netns), Payload::Packet);
    }
}

/// The SYN goes on to the pod, by a new entry of IPVS.
fn goes_on(story: &mut Story, at: u64) {
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.lookup(at + 1, IpvsConn::default());
    });
    story.reaches_pod(at + 2);
}

#[test]
fn a_syn_that_comes_twice_is_no_stall() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    story.listener_takes(2 * MS);
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
fn an_answer_that_comes_twice_is_no_stall() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.answered(2 * MS);
    story.answered(2 * MS + 20_000);
    story.acknowledged(30 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
}

#[test]
fn what_a_copy_that_was_long_on_its_way_makes_the_backend_say_is_no_stall() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.listener_takes(2 * MS);
    story.answered(3 * MS);
    // The copy, which comes to the pod only after the ACK has come to the node.
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
fn a_syn_that_comes_once_more_after_the_ack_changes_nothing() {
    for late in [100, 400] {
        let mut story = Story::new();
        story.served(MS);
        let mut said = Vec::new();
        story.engine.poll(80 * MS, |_, fate| said.push(fate));
        copy_arrives(&mut story, late * MS);
        story.engine.poll(600 * MS, |_, fate| said.push(fate));
        said.dedup();
        assert_eq!(said, [Fate::Established]);
    }
}

#[test]
fn what_a_late_copy_makes_the_backend_say_again_and_again_is_no_stall() {
    for is_seen in [true, false] {
        let mut story = Story::new();
        story.served(MS);
        if is_seen {
            let tuple = translated(story.port);
            story.packet(2 * MS, Hook::TcpSynRecvSock, Part::Ack, tuple, POD);
        }
        // The connection is over; a listener takes the copy for a new one, and nobody answers it.
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
fn a_late_answer_to_the_second_syn_costs_nothing_once_the_first_one_was_taken() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.listener_takes(2 * MS);
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
fn an_answer_that_is_sent_again_although_the_ack_came_in_is_not_the_clients_fault() {
    let mut story = Story::new();
    story.served(MS);
    story.answered(1_001 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::Unknown)));
    assert!(diagnosis.explanation.contains("ACK came in"), "{diagnosis:?}");
}

#[test]
fn a_syn_that_comes_after_a_second_was_sent_again() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    story.served(1_001 * MS);
    let (flow, fate, _) = story.only();
    assert_eq!((fate, flow.attempts.len()), (Fate::Stalled, 3));
    assert_eq!(flow.stall_ns(), Some(1_000 * MS));
}

#[test]
fn a_lost_answer_is_not_the_backends_fault_although_the_syn_came_twice() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    story.listener_takes(2 * MS);
    story.answered(3 * MS);
    copy_reaches_pod(&mut story, 3 * MS);
    story.answered(4 * MS);
    // Neither came to the client.
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
fn a_discarded_syn_whose_copy_goes_on_costs_nothing() {
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
fn what_became_of_the_copy_that_went_on_counts() {
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
fn a_discarded_copy_is_not_the_end_of_the_syn() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    copy_arrives(&mut story, MS + 20_000);
    let discarded = Payload::Drop(Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    });
    let way = (original(story.port), NODE);
    story.seen(2 * MS, Hook::KfreeSkb, (Part::Syn, COPY), way, discarded);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
}

#[test]
fn a_syn_and_its_copy_that_are_both_discarded_are_dropped() {
    let mut story = Story::new();
    for _ in 0..2 {
        story.arrives(MS);
        story.ipvs(MS + 1, NF_DROP, |story| {
            story.lookup(MS + 1, entry(ipvs_conn::TIME_WAIT, 1, 0, 0));
        });
        story.discarded(MS + 2);
    }
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::IpvsDestUnavailable))
    );
    assert_eq!(flow.attempts.len(), 2);
}

#[test]
fn an_answer_that_the_clients_tcp_does_not_need_any_more_was_not_discarded_elsewhere() {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.listener_takes(2 * MS);
    story.arrives(1_001 * MS);
    // The answer to the first SYN, late, and that to the second. A client on the same machine is connected by the first.
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
    let discarded = Payload::Drop(Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    });
    story.seen(
        1_504 * MS,
        Hook::KfreeSkb,
        (Part::SynAck, 0x200),
        (back, 0),
        discarded,
    );
    story.acknowledged(1_505 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::BackendSlow)));
}

/// A SYN that goes on and is thrown away inside TCP, where a packet has no device.
fn thrown_away_in_tcp(symbol: &str, reason: u32) -> Story {
    let mut story = Story::new();
    goes_on(&mut story, MS);
    story.facts.symbols.insert(0x1234, symbol.to_owned());
    story.facts.drop_reasons.insert(61, "TCP_CLOSE".to_owned());
    let discarded = Payload::Drop(Drop {
        location: 0x1234,
        reason,
        reserved: 0,
    });
    let tuple = translated(story.port);
    story.see(2 * MS, Hook::KfreeSkb, Part::Syn, tuple, 0, discarded);
    story
}

#[test]
fn a_socket_that_is_just_being_closed_throws_the_syn_away_in_silence() {
    const FUNCTION: &str = "tcp_rcv_state_process+0xeb";
    let (_, fate, diagnosis) = thrown_away_in_tcp(FUNCTION, 61).only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::TcpOldConnection))
    );
    assert!(diagnosis.explanation.contains("was just closing"));
    // The function throws SYNs away for other reasons too.
    let (_, _, diagnosis) = thrown_away_in_tcp(FUNCTION, 2).only();
    assert_eq!(diagnosis.cause, Some(Cause::Unknown));
}

#[test]
fn a_client_that_met_a_live_connection_of_its_port_sends_its_syn_again_at_once() {
    // A bare ACK tells the client, whose RST ends the old connection.
    let mut story = thrown_away_in_tcp("tcp_validate_incoming+0x1", u32::MAX);
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
