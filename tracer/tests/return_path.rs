//! The path of the SYN-ACK back to the client.

mod story;

use story::{MS, NODE, PATIENCE, POD, Story, entry, has, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::{catalogue, cause::Cause},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, IpvsConn, Socket, Vip},
    tcp::Part,
    tuple::{Addr, Tuple},
    uapi::verdict::NF_STOLEN,
};

const CLIENT: u32 = 3;

/// A SYN that a listener in the pod accepts.
fn accepted(story: &mut Story, at: u64) {
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.lookup(at + 2, IpvsConn::default());
        story.syn(at + 3, Hook::IpvsNatXmit, Payload::IpvsConn(entry(3, 1, 1, 0)));
    });
    story.reaches_pod(at + 4);
    story.listener_accepts(at + 6);
}

fn answer(story: &Story) -> Tuple {
    translated(story.port).reversed()
}

/// The pod's SYN-ACK reaches the node.
fn comes_back(story: &mut Story, at: u64) {
    let answer = answer(story);
    story.packet(at, Hook::DevStartXmit, Part::SynAck, answer, POD);
    story.packet(at + 1, Hook::NetifReceive, Part::SynAck, answer, NODE);
}

fn drop() -> Payload {
    Payload::Drop(record::Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    })
}

#[test]
fn an_answer_that_the_node_drops_is_reported_with_its_inner_cause() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    let answer = answer(&story);
    story.see(3 * MS, Hook::KfreeSkb, Part::SynAck, answer, NODE, drop());
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::ReturnDropped))
    );
    assert!(has(&diagnosis, "inner-cause", "unknown"));
    assert_eq!(diagnosis.inner, Some(Cause::Unknown));
    // There is no advice for the inner cause.
    let outer = catalogue::row(Cause::ReturnDropped).expect("a row");
    assert!(outer.advice.is_some());
    assert_eq!(diagnosis.advice.as_deref(), outer.advice);
}

#[test]
fn a_dropped_first_answer_explains_the_stall_even_if_the_second_precedes_the_next_syn() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    let answer = answer(&story);
    story.see(3 * MS, Hook::KfreeSkb, Part::SynAck, answer, NODE, drop());
    story.answered(1_001 * MS);
    story.acknowledged(1_002 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::ReturnDropped))
    );
}

#[test]
fn a_backend_whose_answer_is_dropped_in_the_pod_is_silent() {
    for netns in [POD, 0] {
        let mut story = Story::new();
        accepted(&mut story, MS);
        let answer = answer(&story);
        story.see(2 * MS, Hook::KfreeSkb, Part::SynAck, answer, netns, drop());
        let (_, fate, diagnosis) = story.only();
        assert_eq!(
            (fate, diagnosis.cause),
            (Fate::Unanswered, Some(Cause::BackendSilent))
        );
    }
}

#[test]
fn an_answer_that_leaves_with_the_backends_address_was_not_translated() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    let answer = answer(&story);
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, answer, NODE);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ReturnNotTranslated))
    );
    assert!(has(
        &diagnosis,
        "syn-ack-source",
        "10.244.1.2:8080 instead of 10.0.0.1:30080"
    ));
    assert!(has(&diagnosis, "answer-entry", "none"));
}

#[test]
fn an_answer_that_has_only_left_the_pod_is_not_reported_as_untranslated() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
}

#[test]
fn an_answer_that_the_node_delivers_to_itself_was_not_translated() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    // Masqueraded: it returns to the node's own address.
    let answer = Tuple {
        daddr: original(story.port).daddr,
        dport: 61_000,
        ..answer(&story)
    };
    story.packet(2 * MS, Hook::NetifReceive, Part::SynAck, answer, NODE);
    let none = Payload::Socket(Socket::default());
    story.see(3 * MS, Hook::TcpSendReset, Part::SynAck, answer, NODE, none);
    story.see(4 * MS, Hook::KfreeSkb, Part::SynAck, answer, NODE, drop());
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::ReturnNotTranslated))
    );
}

#[test]
fn an_ack_that_is_no_longer_translated_reaches_the_nodes_own_tcp() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    let (tuple, none) = (original(story.port), Payload::Socket(Socket::default()));
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, tuple.reversed(), NODE);
    story.packet(4 * MS, Hook::NetifReceive, Part::Ack, tuple, NODE);
    story.see(5 * MS, Hook::TcpSendReset, Part::Ack, tuple, NODE, none);
    story.see(6 * MS, Hook::KfreeSkb, Part::Ack, tuple, NODE, drop());
    story.packet(7 * MS, Hook::DevStartXmit, Part::Rst, tuple.reversed(), NODE);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::Unknown)),
        "{diagnosis:?}"
    );
    assert!(
        diagnosis.explanation.contains("this node's own TCP"),
        "{diagnosis:?}"
    );
}

#[test]
fn a_closed_client_on_the_node_is_no_failed_translation() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    story.answered(2 * MS);
    let (back, none) = (
        original(story.port).reversed(),
        Payload::Socket(Socket::default()),
    );
    story.see(3 * MS, Hook::TcpSendReset, Part::SynAck, back, NODE, none);
    story.see(4 * MS, Hook::KfreeSkb, Part::SynAck, back, NODE, drop());
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ClientSilent))
    );
}

#[test]
fn an_answer_that_was_translated_for_a_closed_client_on_the_node_was_not_lost() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    // IPVS translates it in the input hook: it leaves by no device.
    let (back, none) = (
        original(story.port).reversed(),
        Payload::Socket(Socket::default()),
    );
    story.see(3 * MS, Hook::TcpSendReset, Part::SynAck, back, NODE, none);
    story.see(4 * MS, Hook::KfreeSkb, Part::SynAck, back, NODE, drop());
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ClientSilent))
    );
    assert!(diagnosis.explanation.contains("was gone by then"));
}

#[test]
fn each_answer_to_a_closed_client_on_the_node_is_reset_in_its_own_sk_buff() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    let back = original(story.port).reversed();
    for (at, skb) in [(3 * MS, 1), (1_003 * MS, 2)] {
        let (place, none) = ((back, NODE), Payload::Socket(Socket::default()));
        story.seen(at, Hook::TcpSendReset, (Part::SynAck, skb), place, none);
        story.seen(at + 1, Hook::KfreeSkb, (Part::SynAck, skb), place, drop());
    }
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ClientSilent))
    );
}

#[test]
fn an_answer_that_ipvs_matches_to_another_service_was_not_translated() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    let (answer, node) = (answer(&story), original(story.port).daddr);
    let vip = |addr, port| {
        Payload::Vip(Vip {
            conn: 1,
            addr,
            port,
            reserved: 0,
        })
    };
    story.see(
        3 * MS,
        Hook::IpvsReply,
        Part::SynAck,
        answer,
        NODE,
        vip(node, 30_081),
    );
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::ReturnNotTranslated));
    assert!(has(&diagnosis, "entry-service", "10.0.0.1:30081"));
}

#[test]
fn an_answer_that_leaves_the_pod_by_another_device_bypasses_the_node() {
    for (ifindex, expected) in [(3, Cause::ReturnBypassed), (2, Cause::Unknown)] {
        let mut story = Story::new();
        accepted(&mut story, MS);
        let answer = answer(&story);
        story.ifindex = ifindex;
        story.packet(2 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
        story.packet(2 * MS + 1, Hook::NetifReceive, Part::SynAck, answer, CLIENT);
        let (_, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(expected)));
    }
}

#[test]
fn an_answer_by_another_device_that_reaches_the_node_does_not_bypass_it() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    story.ifindex = 3;
    story.answered(2 * MS);
    assert_eq!(story.only().2.cause, Some(Cause::ClientSilent));
}

#[test]
fn a_client_that_resets_the_backend_directly_got_the_answer_by_another_path() {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        story.syn(MS + 3, Hook::IpvsNatXmit, Payload::IpvsConn(entry(3, 1, 1, 0)));
    });
    let sent = translated(story.port);
    story.packet(MS + 4, Hook::DevStartXmit, Part::Syn, sent, NODE);
    let mut alone = Story::new();
    std::mem::swap(&mut alone, &mut story);
    alone.packet(2 * MS, Hook::NetifReceive, Part::Rst, sent, NODE);
    assert_eq!(alone.only().2.cause, Some(Cause::ReturnBypassed));
    // A RST to some other address proves nothing.
    let mut other = Story::new();
    other.arrives(MS);
    other.reaches_pod(MS + 4);
    let elsewhere = Tuple {
        daddr: Addr::from(std::net::IpAddr::from([10, 244, 9, 9])),
        ..sent
    };
    other.packet(2 * MS, Hook::NetifReceive, Part::Rst, elsewhere, NODE);
    assert_eq!(other.only().2.cause, Some(Cause::BackendSilent));
}

#[test]
fn a_client_that_does_not_answer_and_one_that_resets_are_different_causes() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    story.answered(2 * MS);
    let mut refused = Story::new();
    accepted(&mut refused, MS);
    refused.answered(2 * MS);
    let reset = original(refused.port);
    refused.packet(3 * MS, Hook::NetifReceive, Part::Rst, reset, NODE);
    for (mut story, word) in [(story, "no ACK"), (refused, "RST")] {
        let (_, fate, diagnosis) = story.only();
        assert_eq!(
            (fate, diagnosis.cause),
            (Fate::Unanswered, Some(Cause::ClientSilent))
        );
        assert!(diagnosis.explanation.contains(word), "{diagnosis:?}");
    }
}

#[test]
fn an_answer_that_leaves_by_another_device_than_the_syn_arrived_on_is_reported() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    story.ifindex = 9;
    let back = original(story.port).reversed();
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, back, NODE);
    assert!(has(&story.only().2, "syn-came-in-by", "netns 1"));
}

#[test]
fn a_client_is_not_called_silent_before_the_timeout() {
    let mut story = Story::new();
    accepted(&mut story, MS);
    story.answered(2 * MS);
    let mut fates = Vec::new();
    story.engine.poll(MS + PATIENCE - 1, |_, fate| fates.push(fate));
    assert_eq!(fates, []);
}
