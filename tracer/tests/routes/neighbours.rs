//! SYNs that wait for ARP/ND.

use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    flow::{fate::Fate, model::Flow},
};
use tracer_common::{
    hook::Hook,
    record::{Icmp, Neighbour},
    tcp::Part,
    uapi::verdict::NF_STOLEN,
};

use super::{
    IN_FINISH_OUTPUT, IN_NEIGHBOUR, NEIGH_CREATEFAIL, NO_REASON, NOT_SPECIFIED, SYN, cause_of, drop, on_node,
    story,
};
use crate::story::{MS, Story, has, original, translated};

/// ARP/ND is unresolved.
fn waits() -> Payload {
    Payload::Neighbour(Neighbour {
        address: translated(1).daddr,
        state: 1,
        reserved: 0,
    })
}

/// IPVS forwards the SYN, which is queued because ARP/ND for the pod is unresolved.
fn sent_and_waiting(story: &mut Story, at: u64) {
    let syn = on_node(translated(story.port));
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |_| ());
    story.seen(at + 2, Hook::NeighbourSend, SYN, syn, waits());
}

#[test]
fn a_syn_that_is_queued_for_a_neighbour_was_not_delivered() {
    let mut story = story(true);
    sent_and_waiting(&mut story, MS);
    let outcome = story.only();
    assert_eq!(
        cause_of(&outcome),
        (Fate::Unanswered, Some(Cause::NeighUnresolved))
    );
    assert!(
        outcome
            .2
            .explanation
            .contains("is queued on this node: ARP/ND for 10.244.1.2"),
        "{}",
        outcome.2.explanation
    );
    assert!(has(&outcome.2, "next-hop", "10.244.1.2"));
}

#[test]
fn a_syn_that_is_queued_is_not_reported_before_it_is_dropped() {
    let mut story = story(false);
    let syn = on_node(translated(story.port));
    sent_and_waiting(&mut story, MS);
    let mut fates = Vec::new();
    story
        .engine
        .poll(3_100 * MS, |flow, fate| fates.push((flow.id, fate)));
    story.seen(
        3_200 * MS,
        Hook::KfreeSkb,
        SYN,
        syn,
        drop(IN_NEIGHBOUR, NO_REASON),
    );
    let outcome = story.only();
    assert_eq!(fates, []);
    assert_eq!(cause_of(&outcome), (Fate::Dropped, Some(Cause::NeighUnresolved)));
    assert!(
        outcome
            .2
            .explanation
            .contains("was dropped: ARP/ND for 10.244.1.2"),
        "{}",
        outcome.2.explanation
    );
}

#[test]
fn the_dropped_syn_decides_although_another_one_is_already_queued() {
    let mut story = story(true);
    let syn = on_node(translated(story.port));
    sent_and_waiting(&mut story, MS);
    let unreachable = Icmp {
        icmp_type: 3,
        code: 1,
    };
    story.seen(3_001 * MS, Hook::IcmpSend, SYN, syn, Payload::Icmp(unreachable));
    story.seen(
        3_001 * MS + 1,
        Hook::KfreeSkb,
        SYN,
        syn,
        drop(IN_NEIGHBOUR, NOT_SPECIFIED),
    );
    let next = (Part::Syn, 0x777);
    let retransmitted = on_node(original(story.port));
    story.seen(
        3_001 * MS + 2,
        Hook::NetifReceive,
        next,
        retransmitted,
        Payload::Packet,
    );
    story.seen(3_001 * MS + 3, Hook::NeighbourSend, next, syn, waits());
    assert_eq!(
        cause_of(&story.only()),
        (Fate::Refused, Some(Cause::NeighUnresolved))
    );
}

#[test]
fn a_neighbour_that_answers_at_once_is_no_cause() {
    let mut story = story(true);
    sent_and_waiting(&mut story, MS);
    story.reaches_pod(3 * MS);
    assert_eq!(
        cause_of(&story.only()),
        (Fate::Unanswered, Some(Cause::BackendSilent))
    );
}

/// ARP/ND for the pod resolves after `waited`; the client retransmits its SYN after a second.
fn resolved_after(waited: u64) -> (Flow, Fate, Diagnosis) {
    let mut story = story(true);
    let retransmitted = on_node(original(story.port));
    let sent = on_node(translated(story.port));
    let second = (Part::Syn, 0x777);
    sent_and_waiting(&mut story, MS);
    let known = |story: &mut Story| {
        story.reaches_pod(MS + waited);
        story.listener_accepts(MS + waited + 5);
    };
    if waited < 1_000 * MS {
        known(&mut story);
    }
    story.seen(
        1_001 * MS,
        Hook::NetifReceive,
        second,
        retransmitted,
        Payload::Packet,
    );
    if waited > 1_000 * MS {
        story.seen(1_001 * MS, Hook::NeighbourSend, second, sent, waits());
        known(&mut story);
        story.seen(MS + waited, Hook::DevStartXmit, second, sent, Payload::Packet);
    }
    story.answered(2_001 * MS);
    story.acknowledged(2_002 * MS);
    story.only()
}

#[test]
fn a_pod_whose_arp_resolved_late_was_not_slow() {
    let outcome = resolved_after(1_500 * MS);
    assert_eq!(cause_of(&outcome), (Fate::Stalled, Some(Cause::NeighUnresolved)));
    assert!(
        outcome.2.explanation.contains("1499 ms"),
        "{}",
        outcome.2.explanation
    );
    assert_eq!(outcome.0.stall_ns(), Some(1_500 * MS));
    let outcome = resolved_after(2 * MS);
    assert_eq!(cause_of(&outcome), (Fate::Stalled, Some(Cause::BackendSlow)));
    assert_eq!(outcome.0.stall_ns(), Some(1_000 * MS));
}

#[test]
fn a_full_neighbour_table_is_known_only_by_its_drop_reason() {
    for (reason, expected) in [
        (NEIGH_CREATEFAIL, Cause::NeighUnresolved),
        (NOT_SPECIFIED, Cause::Unknown),
    ] {
        let mut story = story(true);
        let syn = on_node(translated(story.port));
        story.arrives(MS);
        story.seen(MS + 1, Hook::KfreeSkb, SYN, syn, drop(IN_FINISH_OUTPUT, reason));
        assert_eq!(cause_of(&story.only()), (Fate::Dropped, Some(expected)));
    }
}
