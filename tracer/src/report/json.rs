//! JSON lines, schema 1. What is not known is `null`. Lines name their host only where several runs are merged.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::path::{self, PathStep};
use crate::{
    diagnose::{self, Dataplane, cause::Cause, evidence::Evidence},
    finding::{
        Finding,
        clock::{milliseconds, rfc3339},
        head::Head,
        hook_state::HookState,
        run::{End, Health, Hooks},
        totals::{Counts, Totals},
    },
    flow::fate::Fate,
};

/// An address and a port.
#[derive(Debug, Serialize)]
struct Endpoint {
    ip: IpAddr,
    port: u16,
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(address: std::net::SocketAddr) -> Self {
        Self {
            ip: address.ip(),
            port: address.port(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Backend {
    ip: IpAddr,
    port: u16,
    name: Option<String>,
}

/// One object per line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Start {
        schema: u32,
        tracer: &'a str,
        host: &'a str,
        kernel: &'a str,
        time: String,
        ports: &'a [u16],
        hooks: &'a [HookState],
    },
    Hooks {
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        time: String,
        why: &'a str,
        hooks: &'a [HookState],
    },
    Flow(Box<FlowLine<'a>>),
    Health {
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        time: String,
        events: u64,
        lost: u64,
        lost_by_hook: BTreeMap<&'a str, u64>,
    },
    Damage {
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        what: &'a str,
    },
    End {
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        flows: u64,
        events: u64,
        lost: u64,
        by_fate: &'a BTreeMap<Fate, u64>,
        by_cause: &'a BTreeMap<Cause, u64>,
    },
}

#[derive(Debug, Serialize)]
struct FlowLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    id: u64,
    start: String,
    netns: Option<u32>,
    client: Endpoint,
    node: Endpoint,
    service: Option<&'a str>,
    dataplane: Option<Dataplane>,
    backend: Option<Backend>,
    fate: Fate,
    cause: Option<Cause>,
    inner_cause: Option<Cause>,
    explanation: &'a str,
    advice: Option<&'a str>,
    evidence: &'a [Evidence],
    attempts: Vec<Attempt<'a>>,
    syns: usize,
    synacks: u32,
    connect_ms: Option<f64>,
    stall_ms: Option<f64>,
    lost_ms: f64,
    path: Vec<PathStep>,
}

/// One SYN that the client sent.
#[derive(Debug, Serialize)]
struct Attempt<'a> {
    n: usize,
    t_ms: f64,
    cause: Option<Cause>,
    inner_cause: Option<Cause>,
    explanation: &'a str,
    lost_ms: f64,
}

impl<'a> From<&'a diagnose::Attempt> for Attempt<'a> {
    fn from(attempt: &'a diagnose::Attempt) -> Self {
        Self {
            n: attempt.number,
            t_ms: milliseconds(attempt.t_ns),
            cause: attempt.cause,
            inner_cause: attempt.inner,
            explanation: &attempt.explanation,
            lost_ms: milliseconds(attempt.lost_ns),
        }
    }
}

fn write(line: &Line<'_>) -> String {
    // Only a map whose keys are not strings could fail, and there is none.
    serde_json::to_string(line).unwrap_or_default()
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
        hooks: &head.hooks,
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
        hooks: &hooks.hooks,
    })
}

/// One flow.
#[must_use]
pub fn flow(host: Option<&str>, finding: &Finding<'_>) -> String {
    let Finding {
        flow,
        fate,
        diagnosis,
        facts,
        clock,
    } = *finding;
    write(&Line::Flow(Box::new(FlowLine {
        host,
        id: flow.id,
        start: rfc3339(clock.at(flow.start_ns())),
        netns: (flow.netns != 0).then_some(flow.netns),
        client: flow.client().into(),
        node: flow.node().into(),
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
        evidence: &diagnosis.evidence,
        attempts: diagnosis.attempts.iter().map(Attempt::from).collect(),
        syns: flow.attempts.len(),
        synacks: flow.synacks,
        connect_ms: flow.connect_ns().map(milliseconds),
        stall_ms: flow.stall_ns().map(milliseconds),
        lost_ms: milliseconds(diagnosis.lost_ns()),
        path: path::steps(flow, facts),
    })))
}

/// Records were lost.
#[must_use]
pub fn health(host: Option<&str>, health: &Health) -> String {
    let by_hook = health.lost_by_hook.iter();
    write(&Line::Health {
        host,
        time: rfc3339(health.time),
        events: health.events,
        lost: health.lost(),
        lost_by_hook: by_hook.map(|(hook, lost)| (hook.as_str(), *lost)).collect(),
    })
}

/// The recording is damaged or truncated.
#[must_use]
pub fn damage(host: Option<&str>, what: &str) -> String {
    write(&Line::Damage { host, what })
}

/// The last line.
#[must_use]
pub fn end(host: Option<&str>, end: &End, totals: &Totals) -> String {
    let Counts { by_fate, by_cause } = totals.counts();
    write(&Line::End {
        host,
        flows: totals.flows(),
        events: end.events,
        lost: end.lost,
        by_fate: &by_fate,
        by_cause: &by_cause,
    })
}
