//! JSON lines, schema 1. Unknown is `null`. The host is told only where lines of several runs come together.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::path::{self, PathStep};
use crate::{
    diagnose::{Dataplane, Diagnosis, cause::Cause, evidence::Evidence},
    facts::Facts,
    finding::{
        clock::{Clock, milliseconds, rfc3339},
        head::Head,
        hook_state::HookState,
    },
    flow::{fate::Fate, model::Flow},
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

/// One object a line.
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
        lost_by_hook: &'a BTreeMap<&'a str, u64>,
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
    syns: usize,
    synacks: u32,
    connect_ms: Option<f64>,
    stall_ms: Option<f64>,
    path: Vec<PathStep>,
}

fn write(line: &Line<'_>) -> String {
    // Only maps with keys that are no strings could fail, and there are none.
    serde_json::to_string(line).unwrap_or_default()
}

/// The line that is printed once every hook that will attach is attached.
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

/// Hooks whose state changed while tracing, and why: a module came or went, a hook is wanted from now on or no more.
#[must_use]
pub fn hooks(host: Option<&str>, time: jiff::Timestamp, why: &str, hooks: &[HookState]) -> String {
    write(&Line::Hooks {
        host,
        time: rfc3339(time),
        why,
        hooks,
    })
}

/// One flow.
#[must_use]
pub fn flow(
    host: Option<&str>,
    flow: &Flow,
    fate: Fate,
    diagnosis: &Diagnosis,
    facts: &Facts,
    clock: &Clock,
) -> String {
    write(&Line::Flow(Box::new(FlowLine {
        host,
        id: flow.id,
        start: rfc3339(clock.at(flow.start_ns())),
        netns: (flow.netns != 0).then_some(flow.netns),
        client: flow.client().into(),
        node: flow.node().into(),
        service: facts.service(flow.netns, flow.node()),
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
        advice: diagnosis.advice,
        evidence: &diagnosis.evidence,
        syns: flow.attempts.len(),
        synacks: flow.synacks,
        connect_ms: flow.connect_ns().map(milliseconds),
        stall_ms: flow.stall_ns().map(milliseconds),
        path: path::steps(flow, facts),
    })))
}

/// Records were lost.
#[must_use]
pub fn health(
    host: Option<&str>,
    time: jiff::Timestamp,
    events: u64,
    lost: u64,
    lost_by_hook: &BTreeMap<&str, u64>,
) -> String {
    write(&Line::Health {
        host,
        time: rfc3339(time),
        events,
        lost,
        lost_by_hook,
    })
}

/// Something is wrong with a recording: not all of it could be read.
#[must_use]
pub fn damage(host: Option<&str>, what: &str) -> String {
    write(&Line::Damage { host, what })
}

/// The last line.
#[must_use]
pub fn end(
    host: Option<&str>,
    flows: u64,
    events: u64,
    lost: u64,
    by_fate: &BTreeMap<Fate, u64>,
    by_cause: &BTreeMap<Cause, u64>,
) -> String {
    write(&Line::End {
        host,
        flows,
        events,
        lost,
        by_fate,
        by_cause,
    })
}
