//! A step: a check that needs no guest. Its output matters only if it fails.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use tracer_lab::packages::Cache;

use super::process::run_logged;
use super::report::Report;
use super::tally::Tally;
use super::timing::{Share, Timing};
use crate::priority::Priority;

/// How many lines of a failed step are printed.
const MAX_LINES: usize = 200;

/// When a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before the scenarios.
    First,
    /// In parallel with the scenarios, at idle priority: mostly compiling, and no time-dependent check.
    Parallel,
    /// After the scenarios: seconds each, on what was compiled in the meantime.
    Last,
}

/// The action of a step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Runs a program, which counts as one check.
    Program(fn(&Cache) -> Result<Command>),
    /// Runs a program that prints its own checks, and counts these.
    Counted(fn(&Cache) -> Result<Command>, fn(&str) -> Tally),
    /// Calls a function, which returns the faults it found, one per line.
    Function(fn() -> Result<Vec<String>>),
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) title: &'static str,
    /// Whether it is part of `--quick`: it needs no network and little time.
    pub(super) quick: bool,
    pub(super) when: When,
    pub(super) action: Action,
}

impl Step {
    /// Runs it and prints its result, with its output if it fails.
    pub(super) fn run(&self, cache: &Cache, priority: Priority) -> Report {
        let began = Instant::now();
        eprintln!("    Test  {} ...", self.title);
        let (tally, output) = self.act(cache, priority);
        let passed = tally.failed() == 0;
        if !passed {
            let lines: Vec<&str> = output.lines().collect();
            let hidden = lines.len().saturating_sub(MAX_LINES);
            if hidden > 0 {
                println!("... {hidden} lines before these ...");
            }
            println!("{}", lines[hidden..].join("\n"));
        }
        let took = began.elapsed();
        print_result(self.title, passed, took.as_secs_f64());
        let share = match priority {
            Priority::Normal => Share::Alone,
            Priority::Low | Priority::Idle => Share::Parallel,
        };
        let mut timing = Timing::default();
        timing.add(self.title, took, share);
        Report { tally, timing }
    }

    fn act(&self, cache: &Cache, priority: Priority) -> (Tally, String) {
        let (command, count) = match self.action {
            Action::Program(command) => (command(cache), None),
            Action::Counted(command, count) => (command(cache), Some(count)),
            Action::Function(find) => {
                let findings = find().unwrap_or_else(|error| vec![format!("{error:#}")]);
                return (Tally::of(self.title, findings.is_empty()), findings.join("\n"));
            }
        };
        let command = match command {
            Ok(command) => command,
            Err(error) => return (Tally::of(self.title, false), format!("{error:#}")),
        };
        let mut command = priority.apply(command);
        let (succeeded, output) = match run_logged(&mut command, &cache.root().join("logs"), self.title) {
            Ok(done) => done,
            Err(error) => return (Tally::of(self.title, false), format!("{error:#}")),
        };
        let mut tally = count.map_or_else(Tally::default, |count| count(&output));
        // A program that fails without a failed check did not reach its checks. For example, it did not compile.
        if !succeeded && tally.failed() == 0 {
            tally.count(self.title, false);
        } else if count.is_none() {
            tally.count(self.title, succeeded);
        }
        (tally, output)
    }
}

/// Prints one line with the result of a check.
pub(super) fn print_result(title: &str, passed: bool, seconds: f64) {
    let verdict = if passed { "passed" } else { "FAILED" };
    println!("{verdict}  {title} ({seconds:.1} s)");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(action: Action) -> Tally {
        let step = Step {
            title: "a step",
            quick: true,
            when: When::First,
            action,
        };
        let cache = Cache::open().unwrap();
        step.run(&cache, Priority::Normal).tally
    }

    #[test]
    fn a_program_counts_as_one_check_or_as_those_that_it_prints() {
        assert_eq!(run(Action::Program(|_| Ok(Command::new("true")))).passed, 1);
        let count = |output: &str| Tally::of(output.trim(), false);
        let echo = |_: &Cache| {
            let mut command = Command::new("echo");
            command.arg("a check");
            Ok(command)
        };
        assert_eq!(run(Action::Counted(echo, count)).failures, ["a check"]);
    }

    #[test]
    fn a_program_that_fails_before_its_checks_is_a_failure() {
        let nothing = |_: &str| Tally::default();
        let failed = |_: &Cache| Ok(Command::new("false"));
        assert_eq!(run(Action::Counted(failed, nothing)).failures, ["a step"]);
        let missing = |_: &Cache| Ok(Command::new("/no/such/program"));
        assert_eq!(run(Action::Program(missing)).failures, ["a step"]);
    }

    #[test]
    fn a_function_fails_if_it_finds_anything() {
        assert_eq!(run(Action::Function(|| Ok(Vec::new()))).passed, 1);
        assert_eq!(
            run(Action::Function(|| Ok(vec!["README.md:1: x".to_owned()]))).failures,
            ["a step"]
        );
    }
}
