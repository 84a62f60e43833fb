//! Shortens tracer's flow lines for the host: the serial port is slow, and paths are long.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use serde_json::Value;

use crate::protocol::Job;
use crate::scenario::{Cause, Expected, Scenario};

/// Members of a flow's line that are too long for a serial port: `path` unless it was requested, the others
/// in scenarios with thousands of flows.
const LONG_MEMBERS: [&str; 3] = ["path", "evidence", "advice"];

/// This many unexpected flows are sent in full: enough for a diagnosis.
const MAX_UNEXPECTED: usize = 40;

/// Shortens the lines of flows.
#[derive(Debug)]
pub(super) struct Abridge {
    removed_members: &'static [&'static str],
    many_flows: Option<ManyFlows>,
}

/// The state for scenarios with thousands of flows.
#[derive(Debug)]
struct ManyFlows {
    /// The expected causes of the flows from a client's port.
    causes: HashMap<(IpAddr, u16), BTreeSet<Option<&'static str>>>,
    unexpected: usize,
}

impl Abridge {
    pub(super) fn new(scenario: &Scenario, job: &Job) -> Self {
        let many_flows = scenario.expect.matrix.then(|| ManyFlows::of(scenario));
        let removed_members = match many_flows {
            Some(_) => &LONG_MEMBERS[..],
            None if job.keep_path || scenario.expects_paths() => &[],
            None => &LONG_MEMBERS[..1],
        };
        Self {
            removed_members,
            many_flows,
        }
    }

    /// Shortens one flow.
    pub(super) fn flow(&mut self, flow: &mut Value) {
        if self
            .many_flows
            .as_mut()
            .is_some_and(|many_flows| many_flows.is_unexpected(flow))
        {
            return;
        }
        if let Some(fields) = flow.as_object_mut() {
            for member in self.removed_members {
                fields.remove(*member);
            }
            if self.many_flows.is_some()
                && let Some(attempts) = fields.get_mut("attempts").and_then(Value::as_array_mut)
            {
                for attempt in attempts.iter_mut().filter_map(Value::as_object_mut) {
                    attempt.remove("explanation");
                }
            }
        }
    }
}

impl ManyFlows {
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
        Self {
            causes,
            unexpected: 0,
        }
    }

    /// Whether this is one of the first flows whose cause is not expected from its port.
    fn is_unexpected(&mut self, flow: &Value) -> bool {
        let client = &flow["client"];
        let address = client["ip"].as_str().and_then(|ip| ip.parse().ok());
        let port = client["port"].as_u64().and_then(|port| port.try_into().ok());
        let causes = address.zip(port).and_then(|key| self.causes.get(&key));
        let cause = flow["cause"].as_str();
        if causes.is_some_and(|causes| causes.contains(&cause)) || self.unexpected >= MAX_UNEXPECTED {
            return false;
        }
        self.unexpected += 1;
        true
    }
}
