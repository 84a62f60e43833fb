//! Connections that the node itself opens from a NodePort: IPVS handles the SYN-ACK as a request.

mod story;

use story::{MS, NODE, POD, Story, entry, has, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::cause::Cause,
    facts::{NetnsFacts, sysctl::Sysctls},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, OwnConnection},
    tcp::Part,
    uapi::verdict::NF_STOLEN,
};

const OPENED: Payload = Payload::OwnConnection(OwnConnection { opened_ns: MS / 2 });

/// IPVS is first seen to handle a SYN-ACK, and sends it to a pod.
fn handled(story: &mut Story, at: u64) {
    let tuple = original(story.port);
    story.see(at, Hook::IpvsNatXmit, Part::SynAck, tuple, NODE, OPENED);
    sent(story, at + 1);
}

fn sent(story: &mut Story, at: u64) {
    let (tuple, to_pod) = (original(story.port), translated(story.port));
    let conn = Payload::IpvsConn(entry(3, 1, 1, 0));
    story.see(at, Hook::IpvsNatXmit, Part::SynAck, tuple, NODE, conn);
    story.packet(at + 1, Hook::DevStartXmit, Part::SynAck, to_pod, NODE);
    story.packet(at + 2, Hook::NetifReceive, Part::SynAck, to_pod, POD);
}

/// A further SYN-ACK comes in.
fn comes_in(story: &mut Story, at: u64, skb: u64) {
    story.seen(
        at,
        Hook::NetifReceive,
        (Part::SynAck, skb),
        (original(story.port), NODE),
        Payload::Packet,
    );
}

fn refused_by_pod(story: &mut Story, at: u64) {
    let (to_pod, back) = (translated(story.port), original(story.port).reversed());
    let listener = record::Socket {
        sock: 1,
        ack_backlog: 0,
        max_ack_backlog: 128,
    };
    story.see(
        at,
        Hook::TcpSendReset,
        Part::SynAck,
        to_pod,
        POD,
        Payload::Socket(listener),
    );
    story.packet(at + 1, Hook::DevStartXmit, Part::Rst, to_pod.reversed(), POD);
    story.packet(at + 2, Hook::DevStartXmit, Part::Rst, back, NODE);
}

fn sysctls(story: &mut Story, range: &str, reserved: &str) {
    let settings = [
        ("net.ipv4.ip_local_port_range", range),
        ("net.ipv4.ip_local_reserved_ports", reserved),
    ];
    let facts = NetnsFacts {
        sysctls: settings
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter()
            .collect::<Sysctls>(),
        ..NetnsFacts::default()
    };
    story.facts.netns.insert(NODE, facts);
}

#[test]
fn a_pod_that_refuses_the_answer_shows_who_opened_the_connection() {
    let mut story = Story::new();
    handled(&mut story, MS);
    refused_by_pod(&mut story, 2 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::IpvsReplyAsRequest))
    );
    assert!(flow.is_own_connection);
    assert_eq!(flow.client().to_string(), "10.0.0.2:40001");
    assert!(
        diagnosis
            .explanation
            .contains("from 10.0.0.1:30080 to 10.0.0.2:40001"),
        "{}",
        diagnosis.explanation
    );
    assert!(has(
        &diagnosis,
        "own-connection",
        "10.0.0.1:30080 -> 10.0.0.2:40001, SYN sent 0.5 ms before"
    ));
    assert!(has(&diagnosis, "real-server", "10.244.1.2:8080"));
}

#[test]
fn each_syn_ack_that_comes_in_counts() {
    let mut story = Story::new();
    handled(&mut story, MS);
    comes_in(&mut story, 1_001 * MS, 0xabc);
    sent(&mut story, 1_001 * MS + 10);
    let back = original(story.port).reversed();
    // The node retransmits its own SYN, which is not a request.
    story.packet(2_000 * MS, Hook::DevStartXmit, Part::Syn, back, NODE);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(flow.attempts.len(), 2);
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::IpvsReplyAsRequest))
    );
}

#[test]
fn an_answer_that_ipvs_did_not_handle_has_another_cause() {
    let mut story = Story::new();
    handled(&mut story, MS);
    comes_in(&mut story, 1_001 * MS, 0xdef);
    let drop = record::Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    };
    story.seen(
        1_001 * MS + 1,
        Hook::KfreeSkb,
        (Part::SynAck, 0xdef),
        (original(story.port), NODE),
        Payload::Drop(drop),
    );
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Dropped, Some(Cause::Unknown)));
    assert_eq!(diagnosis.attempts[0].cause, Some(Cause::IpvsReplyAsRequest));
}

#[test]
fn an_answer_that_reaches_the_socket_later_is_a_stall() {
    let mut story = Story::new();
    handled(&mut story, MS);
    comes_in(&mut story, 1_001 * MS, 0xdef);
    let tuple = original(story.port);
    story.packet(1_001 * MS + 1, Hook::TcpFinishConnect, Part::SynAck, tuple, NODE);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::IpvsReplyAsRequest))
    );
}

#[test]
fn any_other_syn_ack_begins_no_flow() {
    let mut story = Story::new();
    sent(&mut story, MS);
    assert_eq!(story.engine.orphans(), 3);
}

#[test]
fn a_client_on_the_node_whose_answer_ipvs_handles_has_the_cause_too() {
    let mut story = Story::new();
    story.syn(MS, Hook::TcpConnect, Payload::Packet);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        story.syn(MS + 2, Hook::IpvsNatXmit, Payload::IpvsConn(entry(3, 1, 1, 0)));
    });
    let back = original(story.port).reversed();
    story.see(2 * MS, Hook::IpvsNatXmit, Part::SynAck, back, NODE, OPENED);
    let (flow, _, diagnosis) = story.only();
    assert!(!flow.is_own_connection);
    assert_eq!(diagnosis.cause, Some(Cause::IpvsReplyAsRequest));
    assert!(
        diagnosis
            .explanation
            .contains("from 10.0.0.2:40001 to 10.0.0.1:30080"),
        "{}",
        diagnosis.explanation
    );
}

#[test]
fn only_ports_that_the_kernel_chooses_can_be_reserved() {
    let advice = |range, reserved| {
        let mut story = Story::new();
        sysctls(&mut story, range, reserved);
        handled(&mut story, MS);
        let (_, _, diagnosis) = story.only();
        diagnosis.advice.expect("advice")
    };
    let reserve = advice("1024 65535", "");
    assert!(
        reserve.contains("`sysctl -w net.ipv4.ip_local_reserved_ports=30000-32767`"),
        "{reserve}"
    );
    let reserve = advice("1024 65535", "8080,9148");
    assert!(reserve.contains("=8080,9148,30000-32767`"), "{reserve}");
    let reserved = advice("1024 65535", "30000-32767");
    assert!(
        reserved.contains("`ss -tnp sport = :30080`") && !reserved.contains("sysctl"),
        "{reserved}"
    );
    let outside = advice("32768 60999", "");
    assert!(
        outside.contains("(32768 to 60999)") && !outside.contains("sysctl"),
        "{outside}"
    );
}
