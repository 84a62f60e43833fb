//! Records from the ring buffer: arbitrary bytes, and bytes that resemble the records of a few flows.

#![no_main]

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use tracer::{
    decode::record,
    diagnose,
    facts::Facts,
    finding::{Clock, Finding, Observer as _},
    flow::engine::{Engine, Limits},
};
use tracer_common::{hook::Hook, record::HeaderVersion};
use tracer_fuzz::{observers::Observers, records::Record};

#[derive(Debug, Arbitrary)]
struct Input {
    wild: Vec<u8>,
    records: Vec<Record>,
}

fuzz_target!(|input: Input| {
    let _ = record::printed_conn(&input.wild);
    let mut engine = Engine::new(3_000_000_000, Limits::default());
    if let Ok(event) = record::event(HeaderVersion::CURRENT, &input.wild) {
        engine.push(event);
    }
    let head = tracer_fuzz::head();
    let clock = Clock::new(head.wall, head.monotonic_ns);
    let facts = Facts::default();
    let mut observers = Observers::new(input.records.len() + input.wild.len()).expect("nothing is written");
    observers.start(&head).expect("nothing is written");
    let mut now_ns = 1;
    // Without this record, no later one belongs to a flow.
    let arrival = Record::seen(tracer_fuzz::records::number(Hook::NetifReceive), 0, false, &[]);
    for record in std::iter::once(&arrival).chain(&input.records) {
        if record.asks {
            engine.take_bypassing_rules(|_| {});
            engine.poll(now_ns, |flow, fate| {
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
        }
        if let Ok(event) = record::event(HeaderVersion::CURRENT, &record.to_bytes(&mut now_ns)) {
            engine.push(event);
        }
    }
    engine.finish(now_ns, |flow, fate| {
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
    observers.finish();
});
