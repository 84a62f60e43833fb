//! Which flows are evicted when there are more than tracer keeps, and how that is reported.

use std::net::Ipv4Addr;

use tape::{NODE, POD, Tape, tuple};
use tracer::{
    decode::record,
    diagnose,
    facts::Facts,
    flow::{
        engine::{Engine, Limits},
        fate::Fate,
        rank::Rank,
    },
};
use tracer_common::{hook::Hook, record::HeaderVersion, tcp::Part, tuple::Tuple};

mod tape;

const PATIENCE_NS: u64 = 3_000_000_000;
const SERVICE: ([u8; 4], u16) = ([10, 0, 0, 1], 30_080);

fn from(client: u32) -> Tuple {
    let address = Ipv4Addr::from(0x0a01_0000 + client).octets();
    tuple((address, 40_000), SERVICE)
}

/// Pushes the story, polling every tenth of a second, and returns each flow that was handed out: id, fate, SYNs and explanation.
fn run(tape: &Tape, limits: Limits) -> (Engine, Vec<(u64, Fate, usize, String)>) {
    let mut engine = Engine::new(PATIENCE_NS, limits);
    let mut out = Vec::new();
    let mut poll_ns = 0;
    for (time_ns, record) in tape.in_order() {
        let mut hand_out = |flow: &tracer::flow::model::Flow, fate| {
            let diagnosis = diagnose::diagnose(flow, fate, &Facts::default());
            out.push((flow.id, fate, flow.attempts.len(), diagnosis.explanation));
        };
        if time_ns >= poll_ns {
            poll_ns = time_ns + 100_000_000;
            engine.poll(time_ns, &mut hand_out);
        }
        engine.push(record::event(HeaderVersion::CURRENT, record).expect("a record"));
    }
    engine.finish(u64::MAX / 2, |flow, fate| {
        out.push((flow.id, fate, flow.attempts.len(), String::new()));
    });
    (engine, out)
}

/// A client whose first three SYNs are lost in the pod, and whose fourth is answered, while other clients send one SYN each.
fn flood(per_second: u32) -> Tape {
    let mut tape = Tape::new("node-1", 1_000, 0);
    let victim = from(0);
    let mut next = 1;
    for (index, at_ms) in [0, 1_000, 3_000, 7_000].into_iter().enumerate() {
        if index == 0 {
            tape.flow(99);
        } else {
            tape.resume(1, 99);
        }
        tape.forwarded(at_ms, victim, victim);
        if at_ms == 7_000 {
            tape.packet(at_ms, Hook::NetifReceive, Part::Syn, victim, POD);
            tape.answered(at_ms + 1, victim);
            tape.acknowledged(at_ms + 2, victim);
        }
        let until = [1_000, 3_000, 7_000, 8_000][index];
        for ms in at_ms..until {
            for _ in 0..per_second / 1_000 {
                next += 1;
                tape.flow(next);
                tape.packet(ms, Hook::NetifReceive, Part::Syn, from(next), NODE);
            }
        }
    }
    tape
}

#[test]
fn a_flood_does_not_evict_a_client_that_retransmits() {
    let limits = Limits {
        flows: 1_500,
        ..Limits::default()
    };
    let (engine, out) = run(&flood(1_000), limits);
    let victim: Vec<_> = out.iter().filter(|(id, ..)| *id == 1).collect();
    let last = victim.last().expect("the victim");
    assert_eq!((last.1, last.2), (Fate::Stalled, 4));
    let evicted = engine.evicted();
    assert!(evicted.total() >= 6_000, "{evicted}");
    assert_eq!(
        evicted.by_name().keys().collect::<Vec<_>>(),
        [&Rank::OneSyn.name()]
    );
}

#[test]
fn memory_is_bounded_too() {
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let (engine, out) = run(&flood(1_000), limits);
    assert!(engine.evicted().total() >= 6_000, "{}", engine.evicted());
    assert!(
        out.iter()
            .any(|(id, fate, ..)| *id == 1 && *fate == Fate::Stalled)
    );
}

#[test]
fn every_flow_is_handed_out_or_counted() {
    let limits = Limits {
        flows: 1_500,
        ..Limits::default()
    };
    let (_, mut out) = run(&flood(1_000), limits);
    let evicted: Vec<_> = out
        .iter()
        .filter(|(.., explanation)| explanation.contains("evicted"))
        .collect();
    assert!(evicted.iter().all(|(_, fate, ..)| *fate == Fate::Pending));
    assert!(!evicted.is_empty());
    out.sort_unstable_by_key(|(id, ..)| *id);
    out.dedup_by_key(|(id, ..)| *id);
    assert_eq!(out.len(), 8_001);
}

#[test]
fn without_a_flood_nothing_is_evicted() {
    let (engine, _) = run(&flood(1_000), Limits::default());
    assert_eq!(engine.evicted().to_string(), "0 flows evicted");
}

#[test]
fn a_retransmission_that_the_kernel_half_numbers_again_joins_its_flow() {
    let mut tape = Tape::new("node-1", 1_000, 0);
    tape.flow(99).forwarded(0, from(0), from(0));
    // The kernel half lost the entry, so the same SYN gets another number.
    tape.flow(99).forwarded(1_000, from(0), from(0));
    tape.answered(1_001, from(0));
    tape.acknowledged(1_002, from(0));
    let (_, out) = run(&tape, Limits::default());
    let flows: Vec<_> = out
        .iter()
        .map(|(id, fate, syns, _)| (*id, *fate, *syns))
        .collect();
    assert_eq!(flows, [(1, Fate::Stalled, 2)]);
    // What happened before the kernel half followed it again was not seen.
    tape.flow(101).forwarded(5_000, from(9), from(9));
    let (_, out) = run(&tape, Limits::default());
    let explanation = &out[0].3;
    assert!(
        explanation.contains("too full to follow this flow"),
        "{explanation}"
    );
}

#[test]
fn only_flows_that_may_still_change_are_followed() {
    const SECOND: u64 = 1_000_000_000;
    let mut tape = Tape::new("node-1", 1_000, 0);
    tape.flow(1).forwarded(0, from(1), from(1));
    tape.flow(2).forwarded(0, from(2), from(2));
    tape.answered(1, from(2));
    tape.flow(3).forwarded(0, from(3), from(3));
    tape.answered(1, from(3));
    tape.acknowledged(2, from(3));
    // Polls at this time.
    tape.flow(4).forwarded(6_000, from(4), from(4));
    let begin = tape.in_order()[0].0;
    let mut engine = Engine::new(PATIENCE_NS, Limits::default());
    for (time_ns, record) in tape.in_order() {
        engine.poll(time_ns, |_, _| {});
        engine.push(record::event(HeaderVersion::CURRENT, record).expect("a record"));
    }
    let followed = |at_s| {
        let mut numbers: Vec<u64> = engine.followed(begin + at_s * SECOND).into_iter().collect();
        numbers.sort_unstable();
        numbers
    };
    // The first and the last sent a single SYN, the third is established.
    assert_eq!(followed(6).len(), 1);
    assert_eq!(followed(30).len(), 1, "an answer may be retransmitted this late");
    assert_eq!(followed(41).len(), 0);
}

#[test]
fn another_connection_from_the_same_port_is_another_flow() {
    let mut tape = Tape::new("node-1", 1_000, 0);
    tape.flow(99).forwarded(0, from(0), from(0));
    tape.flow(100).forwarded(1_000, from(0), from(0));
    let (_, out) = run(&tape, Limits::default());
    assert_eq!(out.len(), 2);
}
