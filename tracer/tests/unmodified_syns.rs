//! SYNs that leave the node unmodified: routed, or sent by IPVS with direct routing or in a tunnel.

mod story;

use std::net::SocketAddr;

use story::{MS, NODE, POD, Story, entry, has, original};
use tracer::{
    decode::event::Payload,
    diagnose::{Dataplane, cause::Cause},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, IpvsConn, Socket},
    tcp::Part,
    tuple::Tuple,
    uapi::verdict::NF_STOLEN,
};

const SYN: (Part, u64) = (Part::Syn, 0xabc);

fn tuple(story: &Story) -> Tuple {
    original(story.port)
}

fn real_server() -> Option<SocketAddr> {
    "10.244.1.2:8080".parse().ok()
}

/// IPVS sends a SYN unmodified, with a new entry, and it leaves the node.
fn sent_on(story: &mut Story, at: u64, by: Hook) {
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.lookup(at + 2, IpvsConn::default());
        story.schedules(at + 3, 1);
        let conn = IpvsConn {
            conn: 0x9000,
            ..entry(3, 1, 1, 0)
        };
        story.syn(at + 4, by, Payload::IpvsConn(conn));
    });
    story.syn(at + 5, Hook::DevStartXmit, Payload::Packet);
}

/// The real server, in a namespace of this machine, gets it.
fn comes_to_pod(story: &mut Story, at: u64) {
    let tuple = tuple(story);
    story.packet(at, Hook::NetifReceive, Part::Syn, tuple, POD);
}

fn taken(story: &mut Story, at: u64) {
    let what = Payload::Listener(story::LISTENER);
    let tuple = tuple(story);
    story.see(at, Hook::TcpConnRequest, Part::Syn, tuple, POD, what);
}

#[test]
fn a_real_server_that_answers_directly_is_followed_step_by_step() {
    for by in [Hook::IpvsDirectXmit, Hook::IpvsTunnelXmit] {
        let mut story = Story::new();
        sent_on(&mut story, MS, by);
        comes_to_pod(&mut story, 2 * MS);
        taken(&mut story, 3 * MS);
        let answer = tuple(&story).reversed();
        story.packet(4 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
        story.acknowledged(5 * MS);
        let (flow, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
        assert_eq!(diagnosis.dataplane, Some(Dataplane::Ipvs));
        assert_eq!(flow.backend(), real_server());
        assert_eq!(flow.attempts.len(), 1);
        let took = flow
            .steps
            .iter()
            .find(|step| step.event.hook == Hook::TcpConnRequest);
        assert_eq!(took.map(|step| step.netns), Some(POD));
    }
}

#[test]
fn a_real_server_on_another_machine_may_answer_past_the_node() {
    let mut story = Story::new();
    sent_on(&mut story, MS, Hook::IpvsDirectXmit);
    story.acknowledged(5 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
    assert_eq!((flow.synacks, flow.backend()), (0, real_server()));
}

#[test]
fn a_backend_that_may_have_answered_past_the_node_is_not_blamed() {
    let mut story = Story::new();
    sent_on(&mut story, MS, Hook::IpvsDirectXmit);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(Cause::Unknown)));
}

#[test]
fn a_backend_that_gets_the_syn_and_does_not_answer_is_silent() {
    let mut story = Story::new();
    sent_on(&mut story, MS, Hook::IpvsDirectXmit);
    comes_to_pod(&mut story, 2 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
    assert!(
        diagnosis.explanation.contains("10.244.1.2:8080"),
        "{}",
        diagnosis.explanation
    );
}

#[test]
fn a_real_server_without_a_listener_refuses_the_client_directly() {
    let mut story = Story::new();
    sent_on(&mut story, MS, Hook::IpvsTunnelXmit);
    comes_to_pod(&mut story, 2 * MS);
    let tuple = tuple(&story);
    let what = Payload::Socket(Socket::default());
    story.see(3 * MS, Hook::TcpSendReset, Part::Syn, tuple, POD, what);
    story.packet(4 * MS, Hook::DevStartXmit, Part::Rst, tuple.reversed(), POD);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::TcpNoListener))
    );
    assert!(has(&diagnosis, "rst-sent-by", "the pod"));
}

#[test]
fn an_answer_on_another_path_that_needs_no_translation_bypasses_nothing() {
    let mut story = Story::new();
    sent_on(&mut story, MS, Hook::IpvsDirectXmit);
    comes_to_pod(&mut story, 2 * MS);
    taken(&mut story, 3 * MS);
    story.ifindex = 9;
    let answer = tuple(&story).reversed();
    story.packet(4 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(Cause::Unknown)));
}

#[test]
fn an_old_entry_of_a_draining_server_is_named_however_ipvs_sends() {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        let old = entry(5, 0, 1, 0);
        story.lookup(MS + 2, old);
        story.syn(MS + 3, Hook::IpvsDirectXmit, Payload::IpvsConn(old));
    });
    story.syn(MS + 4, Hook::DevStartXmit, Payload::Packet);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::IpvsReuseStaleBackend))
    );
}

#[test]
fn a_routed_syn_is_followed_into_the_next_namespace() {
    let mut story = Story::new();
    story.arrives(MS);
    story.syn(MS + 1, Hook::DevStartXmit, Payload::Packet);
    comes_to_pod(&mut story, 2 * MS);
    taken(&mut story, 3 * MS);
    let (flow, ..) = story.only();
    assert!(
        flow.steps
            .iter()
            .any(|step| step.event.hook == Hook::TcpConnRequest)
    );
}

#[test]
fn a_retransmission_of_a_client_on_this_machine_counts_once_it_arrives() {
    const CLIENT: u32 = 3;
    let mut story = Story::new();
    sent_on(&mut story, MS, Hook::IpvsDirectXmit);
    comes_to_pod(&mut story, 2 * MS);
    // The buffer of the first SYN is free again and serves for the second one.
    for hook in [Hook::DevStartXmit, Hook::NetifReceive] {
        let tuple = tuple(&story);
        story.seen(1_000 * MS, hook, SYN, (tuple, CLIENT), Payload::Packet);
    }
    sent_on(&mut story, 1_001 * MS, Hook::IpvsDirectXmit);
    comes_to_pod(&mut story, 1_002 * MS);
    let (flow, ..) = story.only();
    assert_eq!(flow.attempts.len(), 2);
    assert!(
        flow.steps
            .iter()
            .all(|step| step.netns == NODE || step.netns == POD)
    );
}

#[test]
fn a_routed_syn_that_gets_lost_in_another_namespace_has_an_unknown_cause() {
    let mut story = Story::new();
    story.arrives(MS);
    story.syn(MS + 1, Hook::DevStartXmit, Payload::Packet);
    comes_to_pod(&mut story, 2 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(Cause::Unknown)));
    assert!(diagnosis.explanation.contains("left this node unmodified"));
}

#[test]
fn the_buffer_of_a_syn_freed_beyond_the_node_may_be_reused() {
    let mut story = Story::new();
    let syn = original(story.port);
    let freed = record::Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    };
    let mut seen = |at, hook, netns, what| story.seen(at, hook, SYN, (syn, netns), what);
    seen(MS, Hook::NetifReceive, NODE, Payload::Packet);
    seen(2 * MS, Hook::DevStartXmit, NODE, Payload::Packet);
    seen(3 * MS, Hook::NetifReceive, POD, Payload::Packet);
    seen(4 * MS, Hook::KfreeSkb, POD, Payload::Drop(freed));
    // The client, in that namespace, sends its SYN again; where it comes in is not this step.
    seen(1_004 * MS, Hook::DevStartXmit, POD, Payload::Packet);
    let (flow, ..) = story.only();
    assert_eq!(flow.attempts.len(), 1);
    let last = flow.steps.last().map(|step| step.event.hook);
    assert_eq!(last, Some(Hook::KfreeSkb));
}
