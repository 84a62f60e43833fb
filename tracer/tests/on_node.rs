//! Clients and backends in the node's own network namespace.

mod story;

use story::{LISTENER, MS, NF_STOLEN, NODE, POD, Story, entry, original, translated};
use tracer::{
    diagnose::cause::Cause,
    flow::{event::What, fate::Fate},
};
use tracer_common::{
    hook::Hook,
    record::{Listener, Socket},
    tcp::Part,
};

/// The SYN of a client on the node: its socket asks, IPVS is asked, the pod's device gets it.
fn asks(story: &mut Story, at: u64) {
    story.syn(at, Hook::TcpConnect, What::Packet);
    sent(story, at);
}

fn sent(story: &mut Story, at: u64) {
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.syn(at + 2, Hook::IpvsNatXmit, What::IpvsConn(entry(3, 1, 1, 0)));
    });
    story.reaches_pod(at + 3);
}

#[test]
fn a_client_on_the_node_has_its_flow_from_its_socket_on() {
    let mut story = Story::new();
    asks(&mut story, MS);
    story.listener_takes(2 * MS);
    let (answer, back) = (translated(story.port).reversed(), original(story.port).reversed());
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
    story.packet(4 * MS, Hook::TcpFinishConnect, Part::SynAck, back, NODE);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
    assert_eq!((flow.attempts.len(), flow.connect_ns()), (1, Some(3 * MS)));
}

#[test]
fn a_syn_that_a_client_on_the_node_sends_again_counts_once() {
    let mut story = Story::new();
    asks(&mut story, MS);
    story.syn(1_001 * MS, Hook::TcpRetransmit, What::Packet);
    sent(&mut story, 1_001 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
    assert_eq!(flow.attempts.len(), 2);
}

#[test]
fn a_repetition_counts_nothing_for_a_client_that_comes_in_by_a_device() {
    let mut story = Story::new();
    story.arrives(MS);
    story.syn(1_001 * MS, Hook::TcpRetransmit, What::Packet);
    assert_eq!(story.only().0.attempts.len(), 1);
}

#[test]
fn a_client_on_the_node_is_refused_at_its_socket() {
    let mut story = Story::new();
    asks(&mut story, MS);
    story.in_pod(
        2 * MS,
        Hook::TcpSendReset,
        Part::Syn,
        What::Socket(Socket::default()),
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
    story.on_node(2 * MS, Hook::TcpConnRequest, tuple, What::Listener(full), 1);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::TcpAcceptQueueFull))
    );
}
