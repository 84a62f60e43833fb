//! JSON lines, schema 1. Unknown values are `null`. Lines name their host only where several runs are merged.

mod line;

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;

use self::line::{Addresses, Attempt, Backend, Fact, FlowLine, HazardLine, Line};
use super::{escape, path};
use crate::{
    check::Judged,
    facts::node_state::NodeState,
    finding::{
        Finding,
        clock::{milliseconds, rfc3339},
        head::Head,
        run::{End, Health, Hooks},
        totals::{Counts, Totals},
    },
};

/// The run whose lines are written.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The host, where lines of several hosts are merged.
    pub host: Option<String>,
    /// The node's name.
    pub node_name: String,
    /// Identifies the node's boot.
    pub boot_id: String,
}

/// The JSON schema of a line.
#[must_use]
pub fn schema() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings
        .into_generator()
        .into_root_schema_for::<Line<'_>>()
        .into()
}

fn write(line: &Line<'_>) -> String {
    // Only a map whose keys are not strings could fail, and there is none.
    escape::json(line).unwrap_or_default()
}

/// The first line: every hook that will attach is attached.
#[must_use]
pub fn start(head: &Head) -> String {
    write(&Line::Start {
        schema: 1,
        tracer: &head.tracer,
        host: &head.host,
        kernel: &head.kernel,
        time: rfc3339(head.ready),
        ports: &head.ports,
        depth: head.depth,
        hooks: &head.hooks,
        sandbox: head.sandbox.as_ref(),
    })
}

/// Hooks whose state changed while tracing, and why: a module was loaded or unloaded, or a hook is needed or no longer
/// needed.
#[must_use]
pub fn hooks(host: Option<&str>, hooks: &Hooks) -> String {
    write(&Line::Hooks {
        host,
        time: rfc3339(hooks.time),
        why: &hooks.why,
        depth: hooks.depth,
        hooks: &hooks.hooks,
    })
}

/// One flow.
#[must_use]
pub fn flow(run: &Run, finding: &Finding<'_>) -> String {
    let Finding {
        flow,
        fate,
        diagnosis,
        facts,
        clock,
    } = *finding;
    let (dnat, snat) = flow.translated();
    write(&Line::Flow(Box::new(FlowLine {
        host: run.host.as_deref(),
        id: flow.id,
        start: rfc3339(clock.at(flow.start_ns())),
        node_name: known(&run.node_name),
        boot_id: known(&run.boot_id),
        netns: (flow.netns != 0).then_some(flow.netns),
        client: flow.client().into(),
        node: flow.node().into(),
        syn_seq: flow.isn,
        dnat: dnat.map(Addresses::from),
        snat: snat.map(Addresses::from),
        service: finding.service(),
        dataplane: diagnosis.dataplane,
        backend: flow.backend().map(|backend| Backend {
            ip: backend.ip(),
            port: backend.port(),
            name: None,
        }),
        fate,
        cause: diagnosis.cause,
        inner_cause: diagnosis.inner,
        explanation: &diagnosis.explanation,
        advice: diagnosis.advice.as_deref(),
        evidence: diagnosis.evidence.iter().map(Fact::from).collect(),
        attempts: diagnosis.attempts.iter().map(Attempt::from).collect(),
        syns: flow.attempts.len(),
        synacks: flow.synacks,
        connect_ms: flow.connect_ns().map(milliseconds),
        stall_ms: flow.stall_ns().map(milliseconds),
        lost_ms: milliseconds(diagnosis.lost_ns()),
        path: path::steps(flow, facts),
    })))
}

/// A text, or nothing if it is empty.
fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn by_hook(counted: &[(String, u64)]) -> BTreeMap<&str, u64> {
    counted
        .iter()
        .map(|(hook, count)| (hook.as_str(), *count))
        .collect()
}

/// Records were lost.
#[must_use]
pub fn health(host: Option<&str>, health: &Health) -> String {
    write(&Line::Health {
        host,
        time: rfc3339(health.time),
        events: health.events,
        lost: health.lost(),
        lost_by_hook: by_hook(&health.lost_by_hook),
        received: health.received,
        missed: health.missed.as_deref().map(by_hook),
        refused: by_hook(&health.refused),
        evicted: health.evicted.by_name(),
    })
}

/// The hazards of a node, read at `time`.
#[must_use]
pub fn check(node: &NodeState, time: jiff::Timestamp, judged: &[Judged]) -> String {
    let hazards = judged.iter().map(|Judged { hazard, state }| {
        let details = state.details();
        HazardLine {
            id: hazard.id,
            state: state.name(),
            severity: hazard.severity.name(),
            summary: state.summary(),
            evidence: details.map_or(&[], |details| &details.evidence),
            advice: details.map(|details| details.advice.as_str()),
            reference: hazard.reference,
            cause: hazard.cause,
        }
    });
    write(&Line::Check {
        schema: 1,
        tracer: env!("CARGO_PKG_VERSION"),
        host: &node.host,
        kernel: &node.kernel,
        time: rfc3339(time),
        hazards: hazards.collect(),
    })
}

/// The recording is damaged or truncated.
#[must_use]
pub fn damage(host: Option<&str>, what: &str) -> String {
    write(&Line::Damage { host, what })
}

/// The last line. `seen` is the number of flows, printed or not.
#[must_use]
pub fn end(host: Option<&str>, end: &End, totals: &Totals, seen: u64) -> String {
    let Counts { by_fate, by_cause } = totals.counts();
    write(&Line::End {
        host,
        flows: totals.flows(),
        flows_seen: seen,
        events: end.events,
        lost: end.lost,
        lost_by_hook: by_hook(&end.lost_by_hook),
        received: end.received,
        missed: end.missed.as_deref().map(by_hook),
        refused: by_hook(&end.refused),
        evicted: end.evicted.by_name(),
        by_fate: &by_fate,
        by_cause: &by_cause,
    })
}
