//! One flow as a row.

use std::net::SocketAddr;

use crate::{
    diagnose::Diagnosis,
    facts::Facts,
    finding::clock::{Clock, milliseconds},
    flow::{fate::Fate, model::Flow},
    report::path::{self, PathStep},
};

/// Bytes that a row takes besides texts and lists, about.
const ROW: usize = 512;
/// Bytes that an element of a list takes besides its texts, about.
const ELEMENT: usize = 128;

/// What was told of a flow.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Counts the runs of the recorder, from 1.
    pub(super) run: u32,
    /// How often the flow was told of up to here.
    pub(super) told: u32,
    pub(super) id: u64,
    /// Wall-clock nanoseconds since 1970.
    pub(super) start_ns: i64,
    pub(super) netns: Option<u32>,
    pub(super) client: SocketAddr,
    pub(super) node: SocketAddr,
    pub(super) service: Option<String>,
    pub(super) backend: Option<SocketAddr>,
    pub(super) fate: Fate,
    pub(super) diagnosis: Diagnosis,
    pub(super) syns: u32,
    pub(super) synacks: u32,
    pub(super) connect_ms: Option<f64>,
    pub(super) stall_ms: Option<f64>,
    pub(super) path: Vec<PathStep>,
}

impl Row {
    pub(super) fn new(
        (run, told): (u32, u32),
        (flow, fate): (&Flow, Fate),
        diagnosis: &Diagnosis,
        facts: &Facts,
        clock: &Clock,
    ) -> Self {
        Self {
            run,
            told,
            id: flow.id,
            start_ns: nanos(clock.at(flow.start_ns())),
            netns: (flow.netns != 0).then_some(flow.netns),
            client: flow.client(),
            node: flow.node(),
            service: facts.service(flow.netns, flow.node()).map(str::to_owned),
            backend: flow.backend(),
            fate,
            diagnosis: diagnosis.clone(),
            syns: u32::try_from(flow.attempts.len()).unwrap_or(u32::MAX),
            synacks: flow.synacks,
            connect_ms: flow.connect_ns().map(milliseconds),
            stall_ms: flow.stall_ns().map(milliseconds),
            path: path::steps(flow, facts),
        }
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn weight(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let evidence = self.diagnosis.evidence.iter();
        let evidence = evidence.map(|fact| {
            ELEMENT + fact.key.name().len() + fact.label().len() + fact.value.len() + fact.source.len()
        });
        let path = self.path.iter();
        let path = path.map(|step| ELEMENT + step.note.len() + length(&step.dev) + length(&step.verdict));
        let lists: usize = evidence.chain(path).sum();
        ROW + length(&self.service) + self.diagnosis.explanation.len() + lists
    }
}

/// Nanoseconds since 1970. What these cannot count (beyond the year 2262) is their end.
fn nanos(time: jiff::Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}
