//! Each SYN of a flow has its own outcome, and its own cost in time.

mod story;

use story::{MS, NODE, PATIENCE, POD, Story, causes, clock, entry, finding, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::Facts,
    flow::{fate::Fate, model::Flow},
    report::{
        plain,
        summary::{self, Collection},
    },
};
use tracer_common::{
    hook::Hook,
    record::{self, IpvsConn},
    tcp::Part,
    uapi::verdict::NF_STOLEN,
};

/// What each attempt cost, in milliseconds.
fn lost_ms(diagnosis: &Diagnosis) -> Vec<u64> {
    let attempts = diagnosis.attempts.iter();
    attempts.map(|attempt| attempt.lost_ns / MS).collect()
}

/// The pod gets the SYN at this time, and does not answer.
fn unanswered(story: &mut Story, at: u64) {
    story.arrives(at);
    story.ipvs(at + 1, NF_STOLEN, |story| {
        story.lookup(at + 1, IpvsConn::default());
        let new = IpvsConn {
            conn: 0x9000,
            ..entry(3, 1, 1, 0)
        };
        story.syn(at + 2, Hook::IpvsNatXmit, Payload::IpvsConn(new));
    });
    story.reaches_pod(at + 3);
}

/// A dead pod gets the first SYN; the second meets its entry, which drains, and is dropped; the third is served.
fn two_causes([second, third]: [u64; 2]) -> (Flow, Fate, Diagnosis) {
    let mut story = Story::new();
    unanswered(&mut story, MS);
    let draining = entry(3, 0, 1, 1);
    story.expired_and_dropped(second, draining);
    story.served(third);
    story.only()
}

#[test]
fn a_stalled_flow_has_the_cause_of_its_costliest_attempt() {
    let (silent, drained) = (Some(Cause::BackendSilent), Some(Cause::IpvsNodestExpired));
    let (flow, fate, diagnosis) = two_causes([1_001 * MS, 3_001 * MS]);
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, drained));
    assert_eq!(causes(&diagnosis), [silent, drained, None]);
    assert_eq!(lost_ms(&diagnosis), [1_000, 2_000, 0]);
    assert_eq!(Some(diagnosis.lost_ns()), flow.stall_ns());
    let numbers: Vec<(usize, u64)> = diagnosis
        .attempts
        .iter()
        .map(|a| (a.number, a.t_ns / MS))
        .collect();
    assert_eq!(numbers, [(1, 0), (2, 1_000), (3, 3_000)]);
    assert_eq!(diagnosis.attempts[1].explanation, diagnosis.explanation);

    // The client's timer jitters.
    let (_, _, diagnosis) = two_causes([1_001 * MS, 2_010 * MS]);
    assert_eq!(diagnosis.cause, silent);
    assert_eq!(causes(&diagnosis), [silent, drained, None]);
}

#[test]
fn lost_records_make_an_attempt_unknown_if_its_cause_relies_on_what_was_not_seen() {
    let mut story = Story::new();
    story.facts.lost_ns = Some(2 * MS);
    unanswered(&mut story, MS);
    story.expired_and_dropped(1_001 * MS, entry(3, 0, 1, 1));
    story.served(3_001 * MS);
    let expected = [Some(Cause::Unknown), Some(Cause::IpvsNodestExpired), None];
    assert_eq!(causes(&story.only().2), expected);
}

#[test]
fn skipped_probes_concern_only_their_attempt() {
    let mut story = Story::new();
    unanswered(&mut story, MS);
    story.reaches_pod(2 * MS);
    let skipped = Payload::Skipped(record::Skipped::default());
    story.see(
        2 * MS,
        Hook::NetifReceive,
        Part::Syn,
        translated(story.port),
        POD,
        skipped,
    );
    unanswered(&mut story, 1_001 * MS);
    story.served(3_001 * MS);
    let expected = [Some(Cause::Unknown), Some(Cause::BackendSilent), None];
    assert_eq!(causes(&story.only().2), expected);
}

#[test]
fn every_retransmission_to_a_slow_backend_is_its_fault() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    for at in [1_001, 3_001] {
        story.arrives(at * MS);
        story.reaches_pod((at + 1) * MS);
    }
    story.answered(3_500 * MS);
    story.acknowledged(3_510 * MS);
    let (_, fate, diagnosis) = story.only();
    let slow = Some(Cause::BackendSlow);
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, slow));
    assert_eq!(causes(&diagnosis), [slow, slow, None]);
    assert_eq!(lost_ms(&diagnosis), [1_000, 2_000, 0]);
}

#[test]
fn a_single_syn_whose_answer_was_retransmitted_has_the_cause() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    story.answered(4 * MS);
    story.answered(1_004 * MS);
    story.acknowledged(1_005 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Stalled, Some(Cause::ClientSilent))
    );
    assert_eq!(causes(&diagnosis), [diagnosis.cause]);
    assert_eq!(Some(diagnosis.lost_ns()), flow.stall_ns());
}

#[test]
fn a_healthy_flow_has_one_attempt_that_cost_nothing() {
    let mut story = Story::new();
    story.served(MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, causes(&diagnosis)), (Fate::Established, vec![None]));
    assert_eq!(diagnosis.lost_ns(), 0);
}

#[test]
fn the_last_attempt_costs_the_time_until_its_end_or_patience() {
    // Nothing came back: the time from when it was last seen until patience ended.
    let mut story = Story::new();
    unanswered(&mut story, MS);
    unanswered(&mut story, 1_001 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Unanswered);
    let silent = Some(Cause::BackendSilent);
    assert_eq!(causes(&diagnosis), [silent, silent]);
    assert_eq!(lost_ms(&diagnosis), [1_000, PATIENCE / MS]);

    // This node dropped it.
    let mut story = Story::new();
    for at in [MS, 1_001 * MS] {
        story.arrives(at);
        story.dropped_by_rule(at + 7 * MS);
    }
    let (_, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Dropped);
    assert_eq!(lost_ms(&diagnosis), [1_000, 7]);

    // The client was refused.
    let mut story = Story::new();
    unanswered(&mut story, MS);
    story.arrives(1_001 * MS);
    let reject = record::Reject::default();
    story.rejected_by(1_005 * MS, Hook::NftReject, reject, true);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Refused);
    assert_eq!(causes(&diagnosis)[0], silent);
    assert_eq!(causes(&diagnosis)[1], diagnosis.cause);
    assert_eq!(lost_ms(&diagnosis), [1_000, 4]);
}

#[test]
fn a_syn_ack_that_is_dropped_late_answered_an_earlier_syn() {
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    let answer = translated(story.port).reversed();
    let waiting = record::Neighbour {
        state: 1,
        ..record::Neighbour::default()
    };
    let queued = Payload::Neighbour(waiting);
    story.packet(4 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
    story.packet(4 * MS, Hook::NetifReceive, Part::SynAck, answer, NODE);
    story.see(
        5 * MS,
        Hook::NeighbourSend,
        Part::SynAck,
        original(story.port).reversed(),
        NODE,
        queued,
    );
    story.arrives(1_001 * MS);
    story.dropped_by_rule(1_002 * MS);
    let freed = record::Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    };
    let back = original(story.port).reversed();
    story.see(
        2_900 * MS,
        Hook::KfreeSkb,
        Part::SynAck,
        back,
        NODE,
        Payload::Drop(freed),
    );
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::NetfilterRuleDropped))
    );
    assert_eq!(causes(&diagnosis)[0], Some(Cause::ReturnDropped));
}

#[test]
fn a_copy_made_by_the_network_is_no_attempt() {
    let mut story = Story::new();
    story.arrives(MS);
    story.arrives(2 * MS);
    story.served(1_001 * MS);
    let (flow, _, diagnosis) = story.only();
    assert_eq!((flow.attempts.len(), diagnosis.attempts.len()), (3, 2));
}

#[test]
fn attempts_of_a_pending_flow_have_no_cause_yet() {
    let mut story = Story::new();
    unanswered(&mut story, MS);
    story.arrives(1_001 * MS);
    let mut pending = Vec::new();
    story.engine.finish(1_500 * MS, |flow, fate| {
        pending.push((fate, tracer::diagnose::diagnose(flow, fate, &story.facts)));
    });
    let [(Fate::Pending, diagnosis)] = &pending[..] else {
        panic!("{pending:?}");
    };
    assert_eq!(causes(diagnosis), [None, None]);
    assert_eq!(lost_ms(diagnosis), [1_000, 0]);
}

/// A SYN-ACK waits on the node for ARP/ND from 2.9 s on, after two SYNs.
fn queued_answer() -> Story {
    let mut story = Story::new();
    for at in [MS, 1_001 * MS] {
        story.arrives(at);
        story.reaches_pod(at + MS);
    }
    story.listener_accepts(1_003 * MS);
    let answer = translated(story.port).reversed();
    story.packet(2_800 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
    story.packet(2_800 * MS, Hook::NetifReceive, Part::SynAck, answer, NODE);
    let waiting = record::Neighbour {
        state: 1,
        ..record::Neighbour::default()
    };
    let back = original(story.port).reversed();
    let queued = Payload::Neighbour(waiting);
    story.see(2_900 * MS, Hook::NeighbourSend, Part::SynAck, back, NODE, queued);
    story
}

fn reported(story: &mut Story, now_ns: u64) -> Vec<Fate> {
    let mut out = Vec::new();
    story.engine.poll(now_ns, |_, fate| out.push(fate));
    out
}

#[test]
fn a_flow_is_not_final_while_a_neighbour_entry_holds_its_packet() {
    let mut story = queued_answer();
    // Patience has ended, the neighbour entry has not failed yet.
    assert_eq!(reported(&mut story, 5_000 * MS), []);
    let freed = record::Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    };
    let back = original(story.port).reversed();
    let freed = Payload::Drop(freed);
    story.see(6_100 * MS, Hook::KfreeSkb, Part::SynAck, back, NODE, freed);
    assert_eq!(reported(&mut story, 6_200 * MS), [Fate::Dropped]);

    // It is not kept forever.
    let mut story = queued_answer();
    assert_eq!(reported(&mut story, 12_800 * MS), []);
    assert_eq!(reported(&mut story, 13_000 * MS), [Fate::Unanswered]);
}

#[test]
fn a_flow_that_is_still_open_at_the_end_says_what_is_open() {
    let mut story = queued_answer();
    let mut pending = Vec::new();
    story.engine.finish(5_000 * MS, |flow, fate| {
        pending.push((
            fate,
            tracer::diagnose::diagnose(flow, fate, &story.facts).explanation,
        ));
    });
    let [(Fate::Pending, explanation)] = &pending[..] else {
        panic!("{pending:?}");
    };
    assert!(explanation.contains("the SYN-ACK is queued on"), "{explanation}");
}

#[test]
fn time_lost_is_charged_to_the_cause_of_each_syn() {
    let (facts, clock) = (Facts::default(), clock());
    let flow = two_causes([1_001 * MS, 3_001 * MS]);
    let finding = finding(&flow, &facts, &clock);
    let mut collection = Collection::default();
    collection.begin("node-1", "6.12");
    collection.add(&finding);
    let summary = collection.summary();
    let causes = summary.causes.iter();
    let causes: Vec<_> = causes
        .map(|one| (one.cause, one.flows, one.partly, one.lost_ms))
        .collect();
    assert_eq!(
        causes,
        [
            (Cause::IpvsNodestExpired, 1, 0, 2_000.0),
            (Cause::BackendSilent, 0, 1, 1_000.0)
        ]
    );
    let text = summary::text(&summary).into_string();
    assert!(
        text.contains("1 connection with another cause lost 1.0 s to backend.silent as well."),
        "{text}"
    );
    let lines = plain::flow(None, &finding, None, true).into_string();
    for line in [
        "SYN 1: 1000 ms lost. backend.silent. The first SYN",
        "SYN 2: 2000 ms lost. ipvs.nodest-expired.\n",
        "SYN 3: It was answered",
    ] {
        assert!(lines.contains(line), "{line}: {lines}");
    }
}
