//! Flows as the host needs them: a serial port is slow, and paths are long.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::Value;

use crate::protocol::Job;
use crate::scenario::{Cause, Expected, Scenario};

/// Parts of a flow's line that are a lot for a serial port: the path where nobody asked for it, the others where there
/// are thousands of flows.
const PARTS: [&str; 3] = ["path", "evidence", "advice"];

/// Of so many flows that surprise all is handed on: enough to see what is wrong.
const SURPRISES: usize = 40;

/// Cuts down the lines of flows.
#[derive(Debug)]
pub(super) struct Abridge {
    parts: &'static [&'static str],
    crowd: Option<Crowd>,
}

/// Thousands of flows.
#[derive(Debug)]
struct Crowd {
    /// The causes that the flows of a client's port may have.
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

    /// Cuts down one flow.
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

    /// Whether this flow is one of the first that have a cause which no flow of this port is to have.
    fn is_surprised(&mut self, flow: &Value) -> bool {
        let client = &flow["client"];
        let address = client["ip"].as_str().and_then(|ip| ip.parse().ok());
        let port = client["port"].as_u64().and_then(|port| port.try_into().ok());
        let causes = address.zip(port).and_then(|key| self.causes.get(&key));
        let told = flow["cause"].as_str();
        if causes.is_some_and(|causes| causes.contains(&told)) || self.surprises >= SURPRISES {
            return false;
        }
        self.surprises += 1;
        true
    }
}
