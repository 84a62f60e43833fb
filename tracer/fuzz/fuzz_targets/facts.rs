//! A packet that a rule dropped, and rules that no kernel would have.

#![no_main]

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use tracer::{
    decode::record,
    diagnose,
    facts::changed_facts::ChangedFacts,
    finding::{Clock, Finding, Observer as _},
    flow::engine::{Engine, Limits},
    recording::{change, patch::Patch},
};
use tracer_common::{hook::Hook, record::HeaderVersion};
use tracer_fuzz::{
    facts::Netns,
    observers::Observers,
    records::{Record, number},
};

#[derive(Debug, Arbitrary)]
struct Input {
    netns: Netns,
    later: Netns,
    /// The bytes that the hook of the rule read.
    read: [u8; 48],
    is_legacy: bool,
    records: Vec<Record>,
    list: Vec<u8>,
    at: Vec<(usize, u8)>,
    between: (usize, usize, Vec<u8>),
}

/// The table or chain that the hook read: arbitrary, or one that is loaded.
fn read(input: &Input) -> Vec<u8> {
    let mut body = input.read.to_vec();
    for (at, name) in [(0, "filter"), (32, "INPUT")] {
        if body[at] & 1 == 0 {
            body[at..at + name.len()].copy_from_slice(name.as_bytes());
            body[at + name.len()] = 0;
        }
    }
    body
}

fuzz_target!(|input: Input| {
    let mut facts = tracer_fuzz::facts::facts(&input.netns.make());
    // A recording stores only what changed.
    let later = tracer_fuzz::facts::facts(&input.later.make());
    let changes = change::diff(&mut facts.clone(), &later, &ChangedFacts::all(&later));
    let mut patched = facts.clone();
    for change in changes {
        assert!(change.apply(&mut patched));
    }
    assert!(patched == later, "the patches lead to other facts");
    let mut list = input.list.clone();
    let _ = Patch::Replace(input.at.clone()).apply(&mut list);
    let (front, back, new) = input.between.clone();
    let _ = Patch::Splice { front, back, new }.apply(&mut list);

    let head = tracer_fuzz::head();
    let clock = Clock::new(head.wall, head.monotonic_ns);
    let mut observers = Observers::new(input.list.len() + input.records.len()).expect("nothing is written");
    observers.start(&head).expect("nothing is written");
    let mut engine = Engine::new(3_000_000_000, Limits::default());
    let mut now_ns = 1;
    let (hook, kind) = if input.is_legacy {
        (Hook::IptDoTable, 17)
    } else {
        (Hook::NftDoChain, 16)
    };
    let story = [
        Record::seen(number(Hook::NetifReceive), 0, false, &[]),
        Record::seen(number(hook), kind, false, &read(&input)),
        Record::seen(number(hook), 0, true, &[]),
        Record::seen(number(Hook::KfreeSkb), 5, false, &[]),
    ];
    for record in story.iter().chain(&input.records) {
        if let Ok(mut event) = record::event(HeaderVersion::CURRENT, &record.to_bytes(&mut now_ns)) {
            event.netns = event.netns.max(1);
            engine.push(event);
        }
    }
    for _ in 0..2 {
        engine.finish(now_ns.saturating_add(4_000_000_000), |flow, fate| {
            let diagnosis = diagnose::diagnose(flow, fate, &facts);
            observers
                .flow(&Finding {
                    flow,
                    fate,
                    diagnosis: &diagnosis,
                    facts: &facts,
                    clock: &clock,
                })
                .expect("nothing is written");
        });
        facts = patched.clone();
    }
    observers.finish();
});
