//! The kernel skips tracer's probes while another probe runs on the same CPU: what was not seen then proves nothing.

mod story;

use story::{MS, NODE, POD, Story, entry, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::{cause::Cause, evidence::Key},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{IpvsConn, Skipped, ipvs_conn},
    tcp::Part,
    uapi::verdict::NF_STOLEN,
};

const PROBES: Payload = Payload::Skipped(Skipped {
    kprobe: 0xffff_8880_1234_0000,
    programs: 0,
    reserved: 0,
});

/// A SYN arrives, and no probe sees it until it reaches the pod's device.
fn passes_unseen(story: &mut Story, at: u64) {
    story.arrives(at);
    story.syn(at, Hook::NetifReceive, PROBES);
    story.reaches_pod(at + 2);
}

/// A SYN goes to the pod by the old entry of a draining real server.
fn goes_to_old_backend(story: &mut Story, at: u64) {
    let old = entry(ipvs_conn::TIME_WAIT, 0, 1, 0);
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.lookup(at + 1, old);
        story.see(
            at + 1,
            Hook::IpvsNatXmit,
            Part::Syn,
            original(story.port),
            NODE,
            Payload::IpvsConn(old),
        );
    });
    story.reaches_pod(at + 2);
}

#[test]
fn nobody_is_blamed_if_the_probes_missed_every_syn() {
    let mut story = Story::new();
    passes_unseen(&mut story, MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(Cause::Unknown)));
    assert!(diagnosis.explanation.contains("skipped tracer's probes"));
    assert!(
        diagnosis
            .evidence
            .iter()
            .any(|evidence| evidence.key == Key::ProbesSkipped)
    );
    assert_eq!(flow.steps.iter().filter(|step| step.probes_skipped).count(), 1);
}

#[test]
fn the_backend_is_blamed_if_the_probes_saw_every_syn() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(MS + 2);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
}

#[test]
fn what_tracepoints_show_needs_no_probes() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(MS + 2);
    story.listener_accepts(2 * MS);
    story.answered(3 * MS);
    let answer = translated(story.port).reversed();
    story.see(
        1_003 * MS,
        Hook::DevStartXmit,
        Part::SynAck,
        answer,
        POD,
        Payload::Packet,
    );
    story.see(1_003 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD, PROBES);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::ClientSilent));
}

#[test]
fn a_syn_that_was_seen_decides_if_the_last_one_was_not() {
    let mut story = Story::new();
    goes_to_old_backend(&mut story, MS);
    passes_unseen(&mut story, 1_001 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::IpvsReuseStaleBackend))
    );
    assert_eq!(flow.attempts.len(), 2, "skipped probes do not add a SYN");
}

/// The handshake completes up to the client's ACK; then the listener resets another ACK of the same tuple.
fn acknowledged_then_reset(acceptance: impl FnOnce(&mut Story)) -> (Fate, Option<Cause>) {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        story.lookup(MS + 1, IpvsConn::default());
    });
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    story.answered(4 * MS);
    story.acknowledged(5 * MS);
    acceptance(&mut story);
    let socket = Payload::Socket(tracer_common::record::Socket::default());
    story.in_pod(700 * MS, Hook::TcpSendReset, Part::Ack, socket, 0);
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis.cause)
}

#[test]
fn a_connection_whose_acceptance_was_not_seen_stays_established() {
    let unseen = acknowledged_then_reset(|story| {
        let tuple = original(story.port);
        story.see(5 * MS, Hook::NetifReceive, Part::Ack, tuple, NODE, PROBES);
    });
    assert_eq!(unseen, (Fate::Established, None));
    let refused = acknowledged_then_reset(|_| {});
    assert_eq!(refused.0, Fate::Refused);
}

/// The pod's retransmitted SYN-ACK was sent before the client's ACK and then delayed by a slow queue.
#[test]
fn a_retransmitted_syn_ack_after_an_unseen_acceptance_costs_nothing() {
    for is_unseen in [true, false] {
        let mut story = Story::new();
        story.arrives(MS);
        story.reaches_pod(2 * MS);
        story.listener_accepts(3 * MS);
        story.answered(4 * MS);
        story.acknowledged(5 * MS);
        if is_unseen {
            let tuple = original(story.port);
            story.see(5 * MS, Hook::NetifReceive, Part::Ack, tuple, NODE, PROBES);
        }
        story.answered(1_004 * MS);
        let (_, fate, _) = story.only();
        assert_eq!(fate == Fate::Established, is_unseen, "{fate}");
    }
}

#[test]
fn the_skipped_probes_of_another_packet_change_nothing() {
    let mut story = Story::new();
    story.arrives(MS);
    let place = (translated(story.port), NODE);
    story.seen(MS, Hook::NetifReceive, (Part::Syn, 0xdef), place, PROBES);
    story.reaches_pod(MS + 2);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::BackendSilent));
}
