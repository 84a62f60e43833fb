//! What becomes of the answer.

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

/// A SYN that a listener in the pod takes.
fn taken(story: &mut Story, at: u64) {
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.lookup(at + 2, IpvsConn::default());
        story.syn(at + 3, Hook::IpvsNatXmit, Payload::IpvsConn(entry(3, 1, 1, 0)));
    });
    story.reaches_pod(at + 4);
    story.listener_takes(at + 6);
}

fn answer(story: &Story) -> Tuple {
    translated(story.port).reversed()
}

/// The pod's answer comes to the node.
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
fn an_answer_that_the_node_discards_is_dropped_with_the_cause_inside() {
    let mut story = Story::new();
    taken(&mut story, MS);
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
    assert_eq!(diagnosis.advice, outer.advice);
}

#[test]
fn a_first_answer_that_was_discarded_explains_the_stall_even_if_the_second_came_before_the_next_syn() {
    let mut story = Story::new();
    taken(&mut story, MS);
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
fn an_answer_that_the_pod_itself_discards_is_the_backends_silence() {
    for netns in [POD, 0] {
        let mut story = Story::new();
        taken(&mut story, MS);
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
    taken(&mut story, MS);
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
fn an_answer_that_leaves_the_pod_is_not_yet_one_that_was_not_translated() {
    let mut story = Story::new();
    taken(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
}

#[test]
fn an_answer_that_the_node_takes_for_its_own_was_not_translated() {
    let mut story = Story::new();
    taken(&mut story, MS);
    // Masqueraded: it comes back to the node's own address.
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
fn an_ack_that_nothing_translates_any_more_meets_the_nodes_own_tcp() {
    let mut story = Story::new();
    taken(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    let (asked, none) = (original(story.port), Payload::Socket(Socket::default()));
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, asked.reversed(), NODE);
    story.packet(4 * MS, Hook::NetifReceive, Part::Ack, asked, NODE);
    story.see(5 * MS, Hook::TcpSendReset, Part::Ack, asked, NODE, none);
    story.see(6 * MS, Hook::KfreeSkb, Part::Ack, asked, NODE, drop());
    story.packet(7 * MS, Hook::DevStartXmit, Part::Rst, asked.reversed(), NODE);
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
fn a_client_on_the_node_that_is_gone_is_no_failed_translation() {
    let mut story = Story::new();
    taken(&mut story, MS);
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
fn an_answer_that_was_translated_for_a_client_on_the_node_that_is_gone_was_not_lost() {
    let mut story = Story::new();
    taken(&mut story, MS);
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
fn each_answer_to_a_client_on_the_node_that_is_gone_is_refused_in_its_own_buffer() {
    let mut story = Story::new();
    taken(&mut story, MS);
    let back = original(story.port).reversed();
    for (at, skb) in [(3 * MS, 1), (1_003 * MS, 2)] {
        let (way, none) = ((back, NODE), Payload::Socket(Socket::default()));
        story.seen(at, Hook::TcpSendReset, (Part::SynAck, skb), way, none);
        story.seen(at + 1, Hook::KfreeSkb, (Part::SynAck, skb), way, drop());
    }
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ClientSilent))
    );
}

#[test]
fn an_answer_that_ipvs_gives_to_another_service_was_not_translated() {
    let mut story = Story::new();
    taken(&mut story, MS);
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
        taken(&mut story, MS);
        let answer = answer(&story);
        story.ifindex = ifindex;
        story.packet(2 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
        story.packet(2 * MS + 1, Hook::NetifReceive, Part::SynAck, answer, CLIENT);
        let (_, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(expected)));
    }
}

#[test]
fn an_answer_by_another_device_that_comes_to_the_node_does_not_bypass_it() {
    let mut story = Story::new();
    taken(&mut story, MS);
    story.ifindex = 3;
    story.answered(2 * MS);
    assert_eq!(story.only().2.cause, Some(Cause::ClientSilent));
}

#[test]
fn a_client_that_refuses_the_backend_itself_got_the_answer_another_way() {
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
fn a_client_that_does_not_answer_or_says_no_is_told_apart() {
    let mut story = Story::new();
    taken(&mut story, MS);
    story.answered(2 * MS);
    let mut refused = Story::new();
    taken(&mut refused, MS);
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
fn an_answer_that_leaves_by_another_device_than_the_syn_came_in_by_is_said() {
    let mut story = Story::new();
    taken(&mut story, MS);
    comes_back(&mut story, 2 * MS);
    story.ifindex = 9;
    let back = original(story.port).reversed();
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, back, NODE);
    assert!(has(&story.only().2, "syn-came-in-by", "netns 1"));
}

#[test]
fn a_client_that_waits_for_its_patience_is_not_called_silent_before() {
    let mut story = Story::new();
    taken(&mut story, MS);
    story.answered(2 * MS);
    let mut said = Vec::new();
    story.engine.poll(MS + PATIENCE - 1, |_, fate| said.push(fate));
    assert_eq!(said, []);
}
