//! Clients and backends in the node's own network namespace.

mod story;

use story::{LISTENER, MS, NODE, POD, Story, entry, original, translated};
use tracer::{decode::event::Payload, diagnose::cause::Cause, flow::fate::Fate};
use tracer_common::{
    hook::Hook,
    record::{Drop, Listener, Neighbour, Socket, ipvs_conn},
    tcp::Part,
    uapi::verdict::{NF_DROP, NF_STOLEN},
};

/// The SYN of a client on the node: from its socket through IPVS to the pod's device.
fn connects(story: &mut Story, at: u64) {
    story.syn(at, Hook::TcpConnect, Payload::Packet);
    sent(story, at);
}

fn sent(story: &mut Story, at: u64) {
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.syn(at + 2, Hook::IpvsNatXmit, Payload::IpvsConn(entry(3, 1, 1, 0)));
    });
    story.reaches_pod(at + 3);
}

#[test]
fn the_flow_of_a_client_on_the_node_starts_at_its_socket() {
    let mut story = Story::new();
    connects(&mut story, MS);
    story.listener_accepts(2 * MS);
    let (answer, back) = (translated(story.port).reversed(), original(story.port).reversed());
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
    story.packet(4 * MS, Hook::TcpFinishConnect, Part::SynAck, back, NODE);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
    assert_eq!((flow.attempts.len(), flow.connect_ns()), (1, Some(3 * MS)));
}

#[test]
fn a_syn_that_a_client_on_the_node_retransmits_counts_once() {
    let mut story = Story::new();
    connects(&mut story, MS);
    sent(&mut story, 1_001 * MS);
    story.syn(1_001 * MS + 5, Hook::TcpRetransmit, Payload::Packet);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
    assert_eq!(flow.attempts.len(), 2);
}

/// The pod's SYN-ACK reaches the client's socket.
fn is_answered(story: &mut Story, at: u64) {
    let (answer, back) = (translated(story.port).reversed(), original(story.port).reversed());
    story.packet(at, Hook::DevStartXmit, Part::SynAck, answer, POD);
    story.packet(at + MS, Hook::TcpFinishConnect, Part::SynAck, back, NODE);
}

/// The SYN matches an old entry; IPVS expires the entry and drops the SYN.
fn is_dropped_by_ipvs(story: &mut Story, at: u64) {
    let old = entry(ipvs_conn::CLOSE, 1, 1, 1);
    story.ipvs(at, NF_DROP, |story| {
        story.lookup(at, old);
        story.expires(at, old);
    });
    story.dropped(at + 2);
}

#[test]
fn steps_seen_before_the_retransmit_tracepoint_belong_to_the_retransmission() {
    let mut story = Story::new();
    story.syn(MS, Hook::TcpConnect, Payload::Packet);
    is_dropped_by_ipvs(&mut story, MS + 1);
    sent(&mut story, 1_001 * MS);
    story.syn(1_001 * MS + 9, Hook::TcpRetransmit, Payload::Packet);
    is_answered(&mut story, 1_002 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::IpvsReuseDropped))
    );
    assert_eq!((flow.attempts.len(), flow.stall_ns()), (2, Some(1_000 * MS + 1)));
}

#[test]
fn a_retransmission_that_is_dropped_on_output_counts_without_its_tracepoint() {
    let mut story = Story::new();
    story.syn(MS, Hook::TcpConnect, Payload::Packet);
    is_dropped_by_ipvs(&mut story, MS + 1);
    is_dropped_by_ipvs(&mut story, 1_001 * MS);
    sent(&mut story, 3_001 * MS);
    story.syn(3_001 * MS + 9, Hook::TcpRetransmit, Payload::Packet);
    is_answered(&mut story, 3_002 * MS);
    let (flow, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::IpvsReuseDropped));
    assert_eq!((flow.attempts.len(), flow.stall_ns()), (3, Some(3_000 * MS + 1)));
}

#[test]
fn the_steps_of_a_retransmission_that_is_dropped_behind_its_device_are_its_own() {
    let mut story = Story::new();
    let place = (original(story.port), NODE);
    let leaves = |story: &mut Story, at| {
        let dropped = Payload::Drop(Drop {
            location: 0x1234,
            reason: u32::MAX,
            reserved: 0,
        });
        story.seen(
            at,
            Hook::DevStartXmit,
            (Part::Syn, 0x100 + at),
            place,
            Payload::Packet,
        );
        story.seen(at + 1, Hook::KfreeSkb, (Part::Syn, 0x100 + at), place, dropped);
    };
    story.syn(MS, Hook::TcpConnect, Payload::Packet);
    leaves(&mut story, MS + 1);
    leaves(&mut story, 1_001 * MS);
    let (flow, ..) = story.only();
    let sent: Vec<usize> = flow.steps.iter().map(|step| step.attempt).collect();
    assert_eq!(sent, [0, 0, 0, 1, 1]);
}

#[test]
fn devices_show_a_retransmission_that_no_other_hook_sees() {
    let mut story = Story::new();
    connects(&mut story, MS);
    story.dropped_in_pod(MS + 5);
    // A conntrack entry translates it: no rule is evaluated.
    story.reaches_pod(1_001 * MS);
    story.syn(1_001 * MS + 9, Hook::TcpRetransmit, Payload::Packet);
    story.listener_accepts(1_001 * MS + 10);
    is_answered(&mut story, 1_002 * MS);
    let (flow, ..) = story.only();
    let sent: Vec<usize> = flow
        .steps
        .iter()
        .filter(|step| step.event.hook == Hook::DevStartXmit && step.event.part == Part::Syn)
        .map(|step| step.attempt)
        .collect();
    assert_eq!(sent, [0, 1]);
}

#[test]
fn a_syn_that_is_queued_for_arp_is_the_first_one() {
    let mut story = Story::new();
    story.syn(MS, Hook::TcpConnect, Payload::Packet);
    let place = (translated(story.port), NODE);
    let waits = Payload::Neighbour(Neighbour::default());
    story.seen(MS + 1, Hook::NeighbourSend, (Part::Syn, 0x111), place, waits);
    story.seen(
        1_000 * MS,
        Hook::DevStartXmit,
        (Part::Syn, 0x111),
        place,
        Payload::Packet,
    );
    story.seen(
        1_000 * MS + 5,
        Hook::DevStartXmit,
        (Part::Syn, 0x222),
        place,
        Payload::Packet,
    );
    story.syn(1_000 * MS + 9, Hook::TcpRetransmit, Payload::Packet);
    let (flow, ..) = story.only();
    let of = |skb: u64| {
        flow.steps
            .iter()
            .rfind(|step| step.event.skb == skb)
            .unwrap()
            .attempt
    };
    assert_eq!((of(0x111), of(0x222)), (0, 1));
}

#[test]
fn the_retransmit_tracepoint_adds_no_syn_for_a_client_behind_a_device() {
    let mut story = Story::new();
    story.arrives(MS);
    story.syn(1_001 * MS, Hook::TcpRetransmit, Payload::Packet);
    assert_eq!(story.only().0.attempts.len(), 1);
}

#[test]
fn a_refusal_reaches_the_socket_of_a_client_on_the_node() {
    let mut story = Story::new();
    connects(&mut story, MS);
    story.in_pod(
        2 * MS,
        Hook::TcpSendReset,
        Part::Syn,
        Payload::Socket(Socket::default()),
        0,
    );
    let back = original(story.port).reversed();
    story.packet(3 * MS, Hook::TcpReceiveReset, Part::Rst, back, NODE);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::TcpNoListener))
    );
}

#[test]
fn a_backend_in_the_nodes_own_netns_has_queues_too() {
    let mut story = Story::new();
    story.arrives(MS);
    let (full, tuple) = (
        Listener {
            ack_backlog: 6,
            max_ack_backlog: 5,
            ..LISTENER
        },
        translated(story.port),
    );
    story.on_node(2 * MS, Hook::TcpConnRequest, tuple, Payload::Listener(full), 1);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::TcpAcceptQueueFull))
    );
}
