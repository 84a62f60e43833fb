//! Follows the scenarios of one guest and collects their results.

use std::fs;
use std::time::Instant;

use serde_json::Value;
use tracer_lab::expect::{self, Matrix};
use tracer_lab::protocol::{Message, Traffic};
use tracer_lab::scenario::Named;

use super::observer::Observer;
use super::options::Options;
use super::plan::GuestPlan;
use super::result::ScenarioResult;

/// Follows the guest's messages from one scenario to the next.
pub(super) struct Session<'a> {
    plan: &'a GuestPlan<'a>,
    options: &'a Options,
    running: Option<Running<'a>>,
    results: Vec<ScenarioResult>,
}

/// The scenario that is running.
struct Running<'a> {
    named: &'a Named,
    began: Instant,
    /// tracer's JSON lines.
    reported: Vec<Value>,
    traffic: Vec<Traffic>,
    recording: Vec<u8>,
    failures: Vec<String>,
}

impl<'a> Running<'a> {
    fn new(named: &'a Named) -> Self {
        Self {
            named,
            began: Instant::now(),
            reported: Vec::new(),
            traffic: Vec::new(),
            recording: Vec::new(),
            failures: Vec::new(),
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(plan: &'a GuestPlan<'a>, options: &'a Options) -> Self {
        Self {
            plan,
            options,
            running: None,
            results: Vec::new(),
        }
    }

    /// The results so far.
    pub(super) fn into_results(self) -> Vec<ScenarioResult> {
        self.results
    }

    /// The scenarios without a result.
    fn remaining(&self) -> Vec<&'a Named> {
        let is_over = |named: &&Named| self.results.iter().any(|result| result.scenario == named.name);
        self.plan
            .scenarios
            .iter()
            .copied()
            .filter(|named| !is_over(named))
            .collect()
    }

    /// The scenarios for the next guest: all without a result, except that those which change the kernel run alone.
    pub(super) fn next_boot(&self) -> Vec<&'a Named> {
        let remaining = self.remaining();
        let (alone, together): (Vec<_>, Vec<_>) =
            remaining.into_iter().partition(|named| named.scenario.own_boot);
        if together.is_empty() {
            alone.into_iter().take(1).collect()
        } else {
            together
        }
    }

    /// Handles one message of the guest.
    pub(super) fn handle(&mut self, message: &Message, observer: &mut dyn Observer) {
        if let Message::Begin { scenario } = message {
            let named = self.plan.scenarios.iter().find(|named| named.name == *scenario);
            self.running = named.map(|named| Running::new(named));
            if let Some(named) = named {
                observer.started(named);
            }
            return;
        }
        observer.message(message);
        let Some(running) = &mut self.running else {
            return;
        };
        match message {
            Message::Tracer { line } if !self.options.demo => match serde_json::from_str(line) {
                Ok(value) => running.reported.push(value),
                Err(error) => running
                    .failures
                    .push(format!("tracer printed invalid JSON ({error}): {line}")),
            },
            Message::Traffic(truth) => running.traffic.push(truth.clone()),
            Message::Recording { hex } => running.recording.extend(bytes(hex)),
            Message::End { ok, why, .. } => {
                if !ok {
                    let why = why.as_deref().unwrap_or("the guest gave no reason");
                    running.failures.push(format!("cannot run it: {why}"));
                }
                self.finish(observer);
            }
            _ => {}
        }
    }

    /// The guest that was to run `tried` is gone: the running scenario has failed. If the guest ran none of them, a new
    /// guest would not either, so all of them have failed.
    pub(super) fn guest_ended(&mut self, tried: &[&'a Named], reason: &str, observer: &mut dyn Observer) {
        if let Some(running) = &mut self.running {
            running.failures.push(reason.to_owned());
            self.finish(observer);
        }
        let remaining = self.remaining();
        let has_run = |named: &&Named| remaining.iter().all(|other| other.name != named.name);
        if tried.iter().any(has_run) {
            return;
        }
        for named in tried {
            observer.started(named);
            let mut running = Running::new(named);
            running.failures.push(reason.to_owned());
            self.running = Some(running);
            self.finish(observer);
        }
    }

    fn finish(&mut self, observer: &mut dyn Observer) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let scenario = &running.named.scenario;
        // A scenario that was cut short lacks flows for that reason alone.
        if running.failures.is_empty() {
            let mismatches = if self.options.checks_tracer() {
                expect::judge(scenario, &running.reported, &running.traffic)
            } else {
                expect::judge_traffic(scenario, &running.traffic)
            };
            running
                .failures
                .extend(mismatches.iter().map(ToString::to_string));
        }
        if let Err(failure) = self.save_recording(&running) {
            running.failures.push(failure);
        }
        let has_matrix = scenario.expect.matrix && self.options.checks_tracer();
        let result = ScenarioResult {
            matrix: has_matrix.then(|| Matrix::of(scenario, &running.reported, &running.traffic)),
            kernel: self.plan.kernel.clone(),
            scenario: running.named.name.clone(),
            took: running.began.elapsed(),
            traffic: running.traffic,
            failures: running.failures,
        };
        observer.finished(&result);
        self.results.push(result);
    }

    /// Saves the recording, if there is one and a folder for it.
    fn save_recording(&self, running: &Running<'_>) -> Result<(), String> {
        let Some(folder) = &self.options.recordings else {
            return Ok(());
        };
        if running.recording.is_empty() {
            return Ok(());
        }
        let name = format!("{}-{}.trace", running.named.name, self.plan.kernel).replace(['/', ' '], "-");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(folder.join(&name), &running.recording))
            .map_err(|error| format!("cannot save the recording {name}: {error}"))
    }
}

/// The bytes encoded by these hexadecimal digits, up to the first invalid pair.
pub(crate) fn bytes(hex: &str) -> impl Iterator<Item = u8> {
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs.map_while(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tracer_lab::scenario::Scenario;

    struct Ignore;

    impl Observer for Ignore {
        fn started(&mut self, _: &Named) {}
        fn message(&mut self, _: &Message) {}
        fn finished(&mut self, _: &ScenarioResult) {}
    }

    const SMALL: &str = r#"
title = "One connection"
story = "For these tests."
kernels = ["6.12"]
[topology]
clients = [{ name = "client-a", address = "10.0.0.2" }]
services = [{ name = "web", node_port = 30080 }]
[[steps]]
connect = { client = "client-a", source_port = 41000 }
[expect]
default = { fate = "refused" }
"#;

    fn named(name: &str) -> Named {
        Named {
            name: name.to_owned(),
            file: PathBuf::new(),
            scenario: Scenario::from_toml(SMALL).unwrap(),
        }
    }

    fn plan<'a>(scenarios: &[&'a Named]) -> GuestPlan<'a> {
        GuestPlan {
            kernel: "6.12".parse().unwrap(),
            cpus: 1,
            scenarios: scenarios.to_vec(),
        }
    }

    fn begin(scenario: &str) -> Message {
        Message::Begin {
            scenario: scenario.to_owned(),
        }
    }

    #[test]
    fn a_scenario_that_crashes_its_guest_fails_and_the_rest_remain() {
        let all = [named("a"), named("b"), named("c")];
        let plan = plan(&[&all[0], &all[1], &all[2]]);
        let options = Options::default();
        let mut session = Session::new(&plan, &options);
        let tried = session.remaining();
        session.handle(&begin("a"), &mut Ignore);
        let why = Some("it took more than 120 s, in: step 1; and it could not be stopped".to_owned());
        let (scenario, ok) = ("a".to_owned(), false);
        session.handle(&Message::End { scenario, ok, why }, &mut Ignore);
        session.handle(&begin("b"), &mut Ignore);
        session.guest_ended(&tried, "Kernel panic", &mut Ignore);

        let reasons: Vec<(&str, &str)> = session
            .results
            .iter()
            .map(|result| (&*result.scenario, &*result.failures[0]))
            .collect();
        assert_eq!(
            reasons,
            [
                (
                    "a",
                    "cannot run it: it took more than 120 s, in: step 1; and it could not be stopped"
                ),
                ("b", "Kernel panic"),
            ]
        );
        assert_eq!(session.remaining(), [&all[2]]);
    }

    #[test]
    fn a_scenario_that_changes_the_kernel_boots_alone() {
        let mut all = [named("a"), named("b"), named("c")];
        for index in [0, 2] {
            all[index].scenario.own_boot = true;
        }
        let plan = plan(&[&all[0], &all[1], &all[2]]);
        let options = Options::default();
        let mut session = Session::new(&plan, &options);
        for expected in ["b", "a", "c"] {
            let tried = session.next_boot();
            assert_eq!(tried.len(), 1);
            session.handle(&begin(expected), &mut Ignore);
            let (scenario, ok) = (expected.to_owned(), true);
            session.handle(
                &Message::End {
                    scenario,
                    ok,
                    why: None,
                },
                &mut Ignore,
            );
            session.guest_ended(&tried, "it ended", &mut Ignore);
            assert_eq!(
                session.results.last().map(|result| &*result.scenario),
                Some(expected)
            );
        }
        assert_eq!((session.next_boot().len(), session.results.len()), (0, 3));
    }

    #[test]
    fn a_guest_that_runs_nothing_fails_all_its_scenarios() {
        let all = [named("a"), named("b")];
        let plan = plan(&[&all[0], &all[1]]);
        let options = Options::default();
        let mut session = Session::new(&plan, &options);
        let tried = session.remaining();
        session.guest_ended(&tried, "it does not boot", &mut Ignore);
        assert_eq!(session.remaining(), [] as [&Named; 0]);
        assert!(
            session
                .results
                .iter()
                .all(|result| result.failures == ["it does not boot"])
        );
    }
}
