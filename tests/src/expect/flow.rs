//! Flows in tracer's JSON lines.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::scenario::{self, Expected, Fate};

/// The members of a flow's line that a scenario can check.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Flow {
    id: Value,
    start: Timestamp,
    pub(super) client: Endpoint,
    pub(super) node: Endpoint,
    pub(super) backend: Option<Endpoint>,
    pub(super) dataplane: Option<String>,
    pub(super) service: Option<String>,
    pub(super) fate: String,
    pub(super) cause: Option<String>,
    pub(super) explanation: String,
    /// Omitted by the guest in scenarios with thousands of flows.
    #[serde(default)]
    pub(super) evidence: Vec<Evidence>,
    pub(super) syns: u32,
    pub(super) connect_ms: Option<f64>,
    pub(super) stall_ms: Option<f64>,
    pub(super) lost_ms: Option<f64>,
    #[serde(default)]
    pub(super) attempts: Vec<Attempt>,
    /// Omitted by the guest unless a scenario checks it.
    #[serde(default)]
    pub(super) path: Vec<super::path::Step>,
}

/// One SYN of a flow, as tracer prints it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Attempt {
    pub(super) n: usize,
    pub(super) t_ms: f64,
    pub(super) cause: Option<String>,
    pub(super) lost_ms: f64,
}

impl Attempt {
    pub(super) fn cause(&self) -> &str {
        self.cause.as_deref().unwrap_or("none")
    }
}

/// One end of a flow.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Endpoint {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// A piece of evidence.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Evidence {
    key: String,
    value: Value,
}

impl Evidence {
    pub(super) fn matches(&self, wanted: &scenario::Evidence) -> bool {
        let is_key = wanted.key.as_ref().is_none_or(|key| *key == self.key);
        let has_value = wanted.value.as_ref().is_none_or(|part| {
            let value = self.value_text().to_lowercase();
            value.contains(&part.to_lowercase())
        });
        is_key && has_value
    }

    fn value_text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` = `{}`", self.key, self.value_text())
    }
}

impl Flow {
    /// Whether it has no cause, or is blamed on the network between client and node.
    pub(super) fn is_blameless(&self) -> bool {
        self.fate == Fate::Established.word() && self.cause.is_none()
            || self.cause.as_deref() == Some(Expected::LOST)
    }

    /// Its fate, if that is a final one.
    pub(super) fn fate(&self) -> Option<Fate> {
        Fate::deserialize(Value::from(self.fate.as_str())).ok()
    }
}

/// The last line of each flow, ordered by the flows' start, and the errors of lines that cannot be parsed.
pub(super) fn latest(lines: &[Value]) -> (Vec<Flow>, Vec<String>) {
    let mut flows: Vec<Flow> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut broken = Vec::new();
    for line in lines.iter().filter(|line| is_type(line, "flow")) {
        match Flow::deserialize(line) {
            Ok(flow) => match places.entry(flow.id.to_string()) {
                Entry::Occupied(place) => flows[*place.get()] = flow,
                Entry::Vacant(place) => {
                    place.insert(flows.len());
                    flows.push(flow);
                }
            },
            Err(error) => broken.push(format!("this flow breaks the schema ({error}): {line}")),
        }
    }
    flows.sort_by_key(|flow| flow.start);
    (flows, broken)
}

/// Whether a line of tracer has this type.
pub(super) fn is_type(line: &Value, kind: &str) -> bool {
    line["type"] == kind
}
