//! One flow as a row.

use std::net::SocketAddr;

use tracer_common::tuple::Tuple;

use crate::{
    diagnose::Diagnosis,
    finding::{Finding, clock::milliseconds},
    flow::fate::Fate,
    report::path::{self, PathStep},
};

/// Bytes of a row besides texts and lists, approximately.
const ROW: usize = 512;
/// Bytes of a list element besides its texts, approximately.
const ELEMENT: usize = 128;

/// A report of a flow.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Counts the runs of the recorder, from 1.
    pub(super) run: u32,
    /// Counts the reports of the flow, from 1: the column `told`.
    pub(super) report: u32,
    pub(super) id: u64,
    /// Wall-clock nanoseconds since 1970.
    pub(super) start_ns: i64,
    pub(super) netns: Option<u32>,
    pub(super) client: SocketAddr,
    pub(super) node: SocketAddr,
    pub(super) syn_seq: u32,
    pub(super) dnat: Option<Tuple>,
    pub(super) snat: Option<Tuple>,
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
    pub(super) fn new(run: u32, report: u32, finding: &Finding<'_>) -> Self {
        let Finding {
            flow,
            fate,
            diagnosis,
            facts,
            clock,
        } = *finding;
        let (dnat, snat) = flow.translated();
        Self {
            run,
            report,
            id: flow.id,
            start_ns: nanos(clock.at(flow.start_ns())),
            netns: (flow.netns != 0).then_some(flow.netns),
            client: flow.client(),
            node: flow.node(),
            syn_seq: flow.isn,
            dnat,
            snat,
            service: finding.service().map(str::to_owned),
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

    /// Bytes in memory, approximately.
    pub(super) fn weight(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let evidence = self.diagnosis.evidence.iter();
        let evidence = evidence.map(|fact| {
            ELEMENT + fact.key.name().len() + fact.label().len() + fact.value.len() + fact.source.len()
        });
        let path = self.path.iter();
        let path = path.map(|step| ELEMENT + step.note.len() + length(&step.dev) + length(&step.verdict));
        let attempts = self.diagnosis.attempts.iter();
        let attempts = attempts.map(|attempt| ELEMENT + attempt.explanation.len());
        let lists: usize = evidence.chain(path).chain(attempts).sum();
        ROW + length(&self.service) + self.diagnosis.explanation.len() + lists
    }
}

/// Nanoseconds since 1970, clamped to what 64 bits can hold (until the year 2262).
fn nanos(time: jiff::Timestamp) -> i64 {
    let nanos = time.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}
