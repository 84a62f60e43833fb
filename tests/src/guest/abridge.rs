//! Shortens tracer's flow lines for the host: the serial port is slow, and paths are long.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::Value;

use crate::protocol::Job;
use crate::scenario::{Cause, Expected, Scenario};

/// Members of a flow's line that are too long for a serial port: `path` unless it was requested, the others
/// in scenarios with thousands of flows.
const PARTS: [&str; 3] = ["path", "evidence", "advice"];

/// This many unexpected flows are sent in full: enough for a diagnosis.
const SURPRISES: usize = 40;

/// Shortens the lines of flows.
#[derive(Debug)]
pub(super) struct Abridge {
    parts: &'static [&'static str],
    crowd: Option<Crowd>,
}

/// The state for scenarios with thousands of flows.
#[derive(Debug)]
struct Crowd {
    /// The expected causes of the flows from a client's port.
    causes: HashMap<(IpAddr, u16), BTreeSet<Option<&'static str>>>,
    surprises: usize,
}

impl Abridge {
    pub(super) fn new(scenario: &Scenario, job: &Job) -> Self {
        let crowd = scenario.expect.matrix.then(|| Crowd::of(scenario));
        let parts = match crowd {
            Some(_) => &PARTS[..],
            None if job.keep_path || scenario.expects_paths() => &[],
            None => &PARTS[..1],
        };
        Self { parts, crowd }
    }

    /// Shortens one flow.
    pub(super) fn flow(&mut self, flow: &mut Value) {
        if self.crowd.as_mut().is_some_and(|crowd| crowd.is_surprised(flow)) {
            return;
        }
        if let Some(fields) = flow.as_object_mut() {
            for part in self.parts {
                fields.remove(*part);
            }
        }
    }
}

impl Crowd {
    fn of(scenario: &Scenario) -> Self {
        let addresses: HashMap<&str, IpAddr> = scenario.topology.parties().collect();
        let mut causes: HashMap<_, BTreeSet<_>> = HashMap::new();
        for (attempt, _) in scenario.attempts() {
            let (Some(address), Some(expected)) = (
                addresses.get(attempt.client.as_str()),
                scenario.expected(&attempt),
            ) else {
                continue;
            };
            let causes = causes.entry((*address, attempt.source_port)).or_default();
            causes.insert(expected.cause.map(Cause::word));
            if expected.lossy {
                causes.insert(Some(Expected::LOST));
            }
        }
        Self { causes, surprises: 0 }
    }

    /// Whether this flow is one of the first whose cause is expected of no flow from its port.
    fn is_surprised(&mut self, flow: &Value) -> bool {
        let client = &flow["client"];
        let address = client["ip"].as_str().and_then(|ip| ip.parse().ok());
        let port = client["port"].as_u64().and_then(|port| port.try_into().ok());
        let causes = address.zip(port).and_then(|key| self.causes.get(&key));
        let cause = flow["cause"].as_str();
        if causes.is_some_and(|causes| causes.contains(&cause)) || self.surprises >= SURPRISES {
            return false;
        }
        self.surprises += 1;
        true
    }
}
