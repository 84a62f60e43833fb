//! The comparison of a scenario, tracer's lines and the clients' truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use serde_json::Value;

use super::assignment::{self, Assignment};
use super::attempts;
use super::deviation::{Deviation, SLOWED_ONE_IN, UNPLANNED_ONE_IN, deviation};
use super::flow::{self, Flow, is_type};
use super::mismatch::Mismatch;
use super::path;
use super::truth::{Experience, STALL_TOLERANCE_MS, is_consistent, waited_ms};
use crate::protocol::{Outcome, Traffic};
use crate::scenario::{Attempt, Cause, Connect, Dataplane, Expected, Fate, Scenario, Totals};

/// Collects the mismatches between a scenario, tracer's lines and the clients' truth.
pub(super) struct Judge<'a> {
    scenario: &'a Scenario,
    pub(super) attempts: Vec<(Attempt, &'a Connect)>,
    planned: BTreeSet<Attempt>,
    pub(super) truths: BTreeMap<Attempt, &'a Traffic>,
    pub(super) mismatches: Vec<Mismatch>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(scenario: &'a Scenario, traffic: &'a [Traffic]) -> Self {
        let attempts = scenario.attempts();
        let mut assignment = Assignment::new(scenario, &attempts);
        let truths = traffic.iter().map(|truth| {
            (
                assignment.assign(&truth.client, truth.source_port, truth.to),
                truth,
            )
        });
        Self {
            truths: truths.collect(),
            scenario,
            planned: attempts.iter().map(|(attempt, _)| attempt.clone()).collect(),
            attempts,
            mismatches: Vec::new(),
        }
    }

    fn mismatch(&mut self, subject: impl fmt::Display, what: impl Into<String>) {
        self.mismatches.push(Mismatch {
            subject: subject.to_string(),
            what: what.into(),
        });
    }

    /// Checks that each attempt was made, that no other was, and that the outcome is what the scenario
    /// intends.
    pub(super) fn traffic(&mut self) {
        let scenario = self.scenario;
        for (attempt, _) in self.attempts.clone() {
            let Some(truth) = self.truths.get(&attempt).copied() else {
                self.mismatch(&attempt, "the client never reported its outcome");
                continue;
            };
            let Some(expected) = scenario.expected(&attempt) else {
                continue;
            };
            let cause = expected.cause.map(Cause::word);
            let may_deviate = expected.lossy || deviation(scenario, expected, truth).is_some();
            if !may_deviate && !is_consistent(expected.fate, cause, truth) {
                let fate = expected.fate;
                self.mismatch(
                    &attempt,
                    format!("expected {fate}, but the client {}", Experience(truth)),
                );
            }
            if let (Some(wanted), Some(answered)) = (&expected.backend, &truth.backend)
                && wanted != answered
            {
                self.mismatch(&attempt, format!("{answered} answered, expected {wanted}"));
            }
        }
        let unplanned: Vec<Attempt> = self
            .truths
            .keys()
            .filter(|attempt| !self.planned.contains(attempt))
            .cloned()
            .collect();
        for attempt in unplanned {
            self.mismatch(attempt, "the client connected, but no step makes this connection");
        }
    }

    /// The flows by attempt. Flows that belong to no attempt are reported as mismatches.
    pub(super) fn read(&mut self, lines: &[Value]) -> BTreeMap<Attempt, Flow> {
        let (latest, broken) = flow::latest(lines);
        for what in broken {
            self.mismatch("tracer", what);
        }
        let mut assignment = Assignment::new(self.scenario, &self.attempts);
        let mut flows = BTreeMap::new();
        for flow in latest {
            let from = &flow.client;
            let mut parties = self.scenario.topology.parties();
            let Some((client, _)) = parties.find(|(_, address)| *address == from.ip) else {
                let subject = format!("{}:{}", from.ip, from.port);
                self.mismatch(
                    subject,
                    format!("tracer reports a flow ({}) from an unknown client", flow.fate),
                );
                continue;
            };
            let to = SocketAddr::new(flow.node.ip, flow.node.port);
            let attempt = assignment.assign(client, from.port, to);
            if self.planned.contains(&attempt) {
                flows.insert(attempt, flow);
            } else {
                self.mismatch(
                    attempt,
                    format!("tracer reports a flow ({}) that no step created", flow.fate),
                );
            }
        }
        flows
    }

    pub(super) fn flows(&mut self, flows: &BTreeMap<Attempt, Flow>) {
        let scenario = self.scenario;
        for (attempt, connect) in self.attempts.clone() {
            let must_be_reported = scenario.is_reported(&attempt, connect);
            let Some(flow) = flows.get(&attempt) else {
                if must_be_reported {
                    self.mismatch(&attempt, "tracer reports no such flow");
                }
                continue;
            };
            if !must_be_reported {
                let what = format!(
                    "tracer reports a flow ({}), but the node's own connection is healthy",
                    flow.fate
                );
                self.mismatch(&attempt, what);
                continue;
            }
            if let Some(to) = assignment::target(scenario, connect)
                && (flow.node.ip, flow.node.port) != (to.ip(), to.port())
            {
                self.mismatch(&attempt, format!("it went to {to}, tracer reports {}", flow.node));
            }
            let truth = self.truths.get(&attempt).copied();
            let expected = scenario.expected(&attempt);
            if expected.is_some_and(|expected| expected.lossy) {
                self.lossy(&attempt, flow, truth);
                continue;
            }
            let deviation = expected.and_then(|expected| deviation(scenario, expected, truth?));
            if let Some(expected) = expected
                && deviation.is_none()
            {
                self.flow(&attempt, flow, expected);
            }
            if let Some(truth) = truth {
                // Where the pod never answered, the handshake or what followed it had failed, and the client
                // does not know which.
                let is_unanswered = truth.outcome == Outcome::Connected && truth.backend.is_none();
                // The client's process may also have been delayed before its SYN or after the answer.
                let is_late = deviation == Some(Deviation::Slowed) && flow.is_blameless();
                if !is_late && (deviation != Some(Deviation::Unplanned) || !is_unanswered) {
                    self.compare_with_truth(&attempt, flow, truth);
                }
            }
        }
    }

    fn flow(&mut self, attempt: &Attempt, flow: &Flow, expected: &Expected) {
        let reported = |cause: Option<&str>| cause.map_or_else(|| "none".to_owned(), str::to_owned);
        if flow.fate != expected.fate.word() {
            self.mismatch(
                attempt,
                format!("the fate is {}, expected {}", flow.fate, expected.fate),
            );
        }
        let cause = expected.cause.map(Cause::word);
        if flow.cause.as_deref() != cause {
            let (is, must) = (reported(flow.cause.as_deref()), reported(cause));
            self.mismatch(attempt, format!("the cause is {is}, expected {must}"));
        }
        if flow.cause.is_some() && flow.explanation.trim().is_empty() {
            self.mismatch(attempt, "it has a cause without an explanation");
        }
        if let Some(pod) = &expected.backend {
            self.backend(attempt, flow, pod);
        }
        if let Some(dataplane) = expected.dataplane.map(Dataplane::word)
            && flow.dataplane.as_deref() != Some(dataplane)
        {
            let is = reported(flow.dataplane.as_deref());
            self.mismatch(attempt, format!("the dataplane is {is}, expected {dataplane}"));
        }
        if expected.service.is_some() && flow.service != expected.service {
            let (is, must) = (
                reported(flow.service.as_deref()),
                reported(expected.service.as_deref()),
            );
            self.mismatch(attempt, format!("the service is {is}, expected {must}"));
        }
        let numbers = [
            ("syns", expected.syns, Some(f64::from(flow.syns))),
            ("stall_ms", expected.stall_ms, flow.stall_ms),
            ("connect_ms", expected.connect_ms, flow.connect_ms),
        ];
        for (name, span, number) in numbers {
            match (span, number) {
                (Some(span), Some(number)) if !span.contains(number) => {
                    self.mismatch(attempt, format!("{name} is {number}, expected {span}"));
                }
                (Some(span), None) => {
                    self.mismatch(attempt, format!("{name} is unknown, expected {span}"));
                }
                _ => {}
            }
        }
        for wanted in &expected.evidence {
            if !flow.evidence.iter().any(|piece| piece.matches(wanted)) {
                let (key, value) = (wanted.key.as_deref(), wanted.value.as_deref());
                let (key, value) = (key.unwrap_or("…"), value.unwrap_or("…"));
                let found: Vec<_> = flow.evidence.iter().map(ToString::to_string).collect();
                let found = if found.is_empty() {
                    "none".to_owned()
                } else {
                    found.join(", ")
                };
                self.mismatch(attempt, format!("no evidence `{key}` = `{value}`; found {found}"));
            }
        }
        if let Some(attempts_mismatch) = attempts::unexpected(&flow.attempts, &expected.attempts) {
            self.mismatch(attempt, attempts_mismatch);
        }
        if let Some(path_mismatch) = path::path_mismatch(&flow.path, &expected.path) {
            self.mismatch(attempt, path_mismatch);
        }
    }

    /// Checks a flow whose packets the network loses: the client experiences more than the node can see.
    fn lossy(&mut self, attempt: &Attempt, flow: &Flow, truth: Option<&Traffic>) {
        if !flow.is_blameless() {
            let cause = flow.cause.as_deref().unwrap_or("none");
            let what = format!("{}, {cause}: its packets were lost outside the node", flow.fate);
            self.mismatch(attempt, what);
        }
        if let Some(pod) = truth.and_then(|truth| truth.backend.as_ref()) {
            self.backend(attempt, flow, pod);
        }
    }

    /// Whatever the scenario expects, tracer must not contradict what the client experienced.
    fn compare_with_truth(&mut self, attempt: &Attempt, flow: &Flow, truth: &Traffic) {
        let Some(fate) = flow.fate() else {
            self.mismatch(attempt, format!("`{}` is not a final fate", flow.fate));
            return;
        };
        let cause = flow.cause.as_deref();
        if let Some(contradiction) = attempts::contradiction(flow) {
            self.mismatch(attempt, contradiction);
        }
        if !is_consistent(fate, cause, truth) {
            self.mismatch(
                attempt,
                format!("tracer reports {fate}, but the client {}", Experience(truth)),
            );
        }
        if fate == Fate::Stalled && truth.outcome == Outcome::Connected {
            let waited = waited_ms(cause, truth);
            let expected = self.scenario.expected(attempt);
            let tolerance = expected.and_then(|expected| expected.stall_off_ms);
            let tolerance = tolerance.unwrap_or(STALL_TOLERANCE_MS);
            match flow.stall_ms {
                None => self.mismatch(attempt, "it is stalled, but stall_ms is unknown"),
                // A slow backend delays every SYN, and so does a machine with thousands of clients: that time
                // is not lost to a retransmission.
                Some(stall)
                    if stall - waited > tolerance
                        || waited - stall > tolerance
                            && cause != Some("backend.slow")
                            && !self.scenario.expect.matrix =>
                {
                    self.mismatch(
                        attempt,
                        format!("stall_ms is {stall:.0}, but the client waited {waited:.0} ms"),
                    );
                }
                Some(_) => {}
            }
        }
        if let Some(pod) = &truth.backend {
            self.backend(attempt, flow, pod);
        }
    }

    fn backend(&mut self, attempt: &Attempt, flow: &Flow, pod: &str) {
        let Some(pod) = self.scenario.topology.pod(pod) else {
            self.mismatch(attempt, format!("`{pod}` answered, but there is no such pod"));
            return;
        };
        let reported = flow.backend.as_ref().map(|backend| (backend.ip, backend.port));
        if reported != Some((pod.address, pod.port)) {
            let reported = reported.map_or_else(|| "unknown".to_owned(), |(ip, port)| format!("{ip}:{port}"));
            let (name, ip, port) = (&pod.name, pod.address, pod.port);
            let what = format!("the backend is {reported}, but {name} ({ip}:{port}) answered");
            if !self
                .mismatches
                .iter()
                .any(|one| one.what == what && one.subject == attempt.to_string())
            {
                self.mismatch(attempt, what);
            }
        }
    }

    pub(super) fn totals(&mut self, totals: &Totals, flows: &BTreeMap<Attempt, Flow>, lines: &[Value]) {
        let mut by_fate: BTreeMap<&str, usize> = BTreeMap::new();
        let mut by_cause: BTreeMap<&str, usize> = BTreeMap::new();
        for flow in flows.values() {
            *by_fate.entry(&flow.fate).or_default() += 1;
            if let Some(cause) = &flow.cause {
                *by_cause.entry(cause).or_default() += 1;
            }
        }
        self.total("flows", totals.flows, flows.len());
        let fates = totals.by_fate.iter().map(|(fate, count)| (fate.word(), *count));
        self.counts(&fates.collect(), &by_fate);
        let causes = totals
            .by_cause
            .iter()
            .map(|(cause, count)| (cause.word(), *count));
        self.counts(&causes.collect(), &by_cause);

        let end = lines.iter().rfind(|line| is_type(line, "end"));
        if let Some(reported) = end.and_then(|end| end["flows"].as_u64())
            && usize::try_from(reported) != Ok(totals.flows)
            && !self.scenario.expect.flood
        {
            self.mismatch(
                "totals",
                format!(
                    "tracer's last line counts {reported} flows, expected {}",
                    totals.flows
                ),
            );
        }
    }

    fn counts(&mut self, wanted: &BTreeMap<&str, usize>, counted: &BTreeMap<&str, usize>) {
        let mut labels: Vec<&str> = wanted.keys().chain(counted.keys()).copied().collect();
        labels.sort_unstable();
        labels.dedup();
        for label in labels {
            let count = |counts: &BTreeMap<&str, usize>| counts.get(label).copied().unwrap_or_default();
            self.total(label, count(wanted), count(counted));
        }
    }

    fn total(&mut self, what: &str, wanted: usize, counted: usize) {
        if wanted != counted {
            self.mismatch("totals", format!("{what}: {counted}, expected {wanted}"));
        }
    }

    /// Under the lab's usual load, no record may be lost.
    pub(super) fn lost_records(&mut self, lines: &[Value]) {
        if self.scenario.expect.flood {
            return;
        }
        let lost = lines
            .iter()
            .filter(|line| is_type(line, "health") || is_type(line, "end"))
            .filter_map(|line| line["lost"].as_u64());
        if let Some(lost) = lost.max().filter(|lost| *lost > 0) {
            self.mismatch("tracer", format!("records lost: {lost}"));
        }
    }

    /// Checks that few flows deviate from the plan.
    pub(super) fn deviations(&mut self) {
        let scenario = self.scenario;
        let planned: Vec<_> = self
            .attempts
            .iter()
            .filter_map(|(attempt, _)| Some((attempt, scenario.expected(attempt)?)))
            .collect();
        let deviations: Vec<Deviation> = planned
            .iter()
            .filter_map(|(attempt, expected)| deviation(scenario, expected, self.truths.get(*attempt)?))
            .collect();
        let count = |wanted| {
            deviations
                .iter()
                .filter(|deviation| **deviation == wanted)
                .count()
        };
        let (slowed, unplanned) = (count(Deviation::Slowed), count(Deviation::Unplanned));
        let (all, to_connect) = (
            planned.len(),
            planned
                .iter()
                .filter(|(_, expected)| expected.fate == Fate::Established)
                .count(),
        );
        if slowed * SLOWED_ONE_IN > to_connect {
            self.mismatch(
                "the machine",
                format!("{slowed} of {to_connect} connections took a second instead of connecting at once"),
            );
        }
        if unplanned * UNPLANNED_ONE_IN > all {
            self.mismatch(
                "the machine",
                format!("{unplanned} of {all} connections did not go as planned"),
            );
        }
    }
}
