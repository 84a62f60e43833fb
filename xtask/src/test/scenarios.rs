//! Plans and runs the scenarios.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_lab::scenario::{KernelName, Named};

use super::boots;
use super::report::Report;
use super::selection::KernelShare;
use super::timing::{Share, minutes};
use crate::lab::options::Options;
use crate::lab::plan::{GuestPlan, parallel_guests};
use crate::lab::pool;
use crate::lab::printer::PrintMode;
use crate::lab::result::{GuestResult, ScenarioResult};
use crate::lab::runner::Lab;

/// Columns of the printed plan.
const WIDTH: usize = 118;

/// The guests, each with its kernel and scenarios.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    shares: Vec<KernelShare<'a>>,
    guests: Vec<GuestPlan<'a>>,
    /// How long the guests may take, estimated.
    budget: Option<Duration>,
}

impl<'a> Plan<'a> {
    /// Splits the scenarios of each kernel into guests. There is at least one share.
    pub(super) fn new(shares: Vec<KernelShare<'a>>, budget: Option<Duration>) -> Self {
        let pairs = shares
            .iter()
            .map(|share| (share.kernel.clone(), share.scenarios.clone()));
        Self {
            guests: boots::split(pairs),
            shares,
            budget,
        }
    }

    /// The kernel for checks with a guest of their own.
    pub(super) fn first_kernel(&self) -> &KernelName {
        &self.shares[0].kernel
    }

    /// The kernels.
    pub(super) fn kernels(&self) -> impl Iterator<Item = &KernelName> {
        self.shares.iter().map(|share| &share.kernel)
    }

    /// The guests.
    pub(super) fn guests(&self) -> &[GuestPlan<'a>] {
        &self.guests
    }

    /// How long all guests take, estimated, with `parallel` of them at a time.
    pub(super) fn estimate(&self, parallel: usize) -> Duration {
        boots::wall_clock(&self.guests, parallel)
    }

    fn scenarios(&self) -> usize {
        self.shares.iter().map(|share| share.scenarios.len()).sum()
    }

    /// How many pairs of scenario and kernel are left to `--full`, in a sentence; empty if there are none.
    pub(super) fn remainder(&self, catalogue: &[Named]) -> String {
        let supported = |share: &KernelShare<'_>| {
            let named = catalogue.iter();
            named
                .filter(|named| named.scenario.runs_on(&share.kernel))
                .count()
        };
        let all: usize = self.shares.iter().map(supported).sum();
        match all - self.scenarios() {
            0 => String::new(),
            left => format!(
                "{left} of {all} pairs of scenario and kernel did not run: `cargo xtask test --full` runs all\n"
            ),
        }
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "    Plan  {} scenarios in {} guests, about {:.0} minutes with {} in parallel",
            self.scenarios(),
            self.guests.len(),
            minutes(self.estimate(parallel_guests())),
            parallel_guests()
        )?;
        match self.budget {
            Some(budget) => writeln!(f, " (budget {:.0})", minutes(budget))?,
            None => writeln!(f)?,
        }
        for share in &self.shares {
            let title = format!("{} ({:.1} min)", share.kernel, minutes(share.estimate()));
            let mut line = format!("          {title:<24}");
            let indent = line.len();
            for (index, named) in share.scenarios.iter().enumerate() {
                let comma = if index + 1 < share.scenarios.len() {
                    ","
                } else {
                    ""
                };
                if line.len() + named.name.len() + 2 > WIDTH {
                    writeln!(f, "{line}")?;
                    line = " ".repeat(indent);
                }
                write!(line, " {}{comma}", named.name)?;
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// Runs the planned scenarios.
pub(super) fn run(lab: &Lab, plan: &Plan<'_>) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    match run_twice(lab, plan) {
        Ok(guests) => {
            report.timing.add("scenarios", began.elapsed(), Share::Alone);
            report.add(by_kernel(&guests));
        }
        Err(error) => {
            println!("error: {error:#}");
            report.add(Report::failed("the lab"));
        }
    }
    report
}

/// Runs everything, then the failed scenarios once more: an emulated guest on a busy machine may stall for a second, and
/// the scenarios measure seconds. A scenario that fails twice has failed; one that fails once is printed.
fn run_twice(lab: &Lab, plan: &Plan<'_>) -> Result<Vec<GuestResult>> {
    let options = Options::default();
    let mut guests = pool::run(lab, plan.guests.clone(), &options, PrintMode::FailuresOnly)?;
    let mut failed: Vec<ScenarioResult> = Vec::new();
    for guest in &mut guests {
        failed.extend(guest.scenarios.extract_if(.., |result| !result.passed()));
    }
    if failed.is_empty() {
        return Ok(guests);
    }
    println!("\nRerunning failed scenarios:");
    for result in &failed {
        println!(
            "  {} on {}: {}",
            result.scenario,
            result.kernel,
            result.failures.join("; ")
        );
    }
    let has_failed = |kernel: &KernelName, named: &Named| {
        failed
            .iter()
            .any(|result| result.kernel == *kernel && result.scenario == named.name)
    };
    let again = plan.shares.iter().map(|share| {
        let scenarios = share.scenarios.iter().copied();
        let scenarios = scenarios.filter(|named| has_failed(&share.kernel, named));
        (share.kernel.clone(), scenarios.collect())
    });
    guests.extend(pool::run(
        lab,
        boots::split(again),
        &options,
        PrintMode::FailuresOnly,
    )?);
    Ok(guests)
}

/// Counts the scenarios, and adds up the time of the guests by kernel.
fn by_kernel(guests: &[GuestResult]) -> Report {
    let mut report = Report::default();
    let mut kernels: BTreeMap<&KernelName, (usize, usize, Duration)> = BTreeMap::new();
    for guest in guests {
        let (boots, scenarios, took) = kernels.entry(&guest.kernel).or_default();
        *boots += 1;
        *scenarios += guest.scenarios.len();
        *took += guest.took;
        for result in &guest.scenarios {
            let name = format!("scenario {} on {}", result.scenario, result.kernel);
            report.tally.count(&name, result.passed());
        }
    }
    for (kernel, (boots, scenarios, took)) in kernels {
        let plural = if boots == 1 { "" } else { "s" };
        let name = format!("{kernel}: {scenarios} scenarios, {boots} boot{plural}");
        report.timing.add(&name, took, Share::Guest);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::super::selection::Selection;
    use super::super::timing::SCENARIO_BUDGET;
    use super::*;

    fn plan(catalogue: &[Named]) -> Plan<'_> {
        Plan::new(
            Selection::default().shares(catalogue).unwrap(),
            Some(SCENARIO_BUDGET),
        )
    }

    #[test]
    fn the_default_selection_is_within_its_budget() {
        let catalogue = super::super::catalogue().unwrap();
        let estimate = plan(&catalogue).estimate(2);
        assert!(
            estimate <= SCENARIO_BUDGET,
            "{estimate:.0?} is more than {SCENARIO_BUDGET:.0?}: make scenarios shorter, or mark some `long`"
        );
    }

    #[test]
    fn the_plan_names_each_scenario_and_its_kernel() {
        let catalogue = super::super::catalogue().unwrap();
        let plan = plan(&catalogue);
        let text = plan.to_string();
        println!("{text}");
        for share in &plan.shares {
            assert!(text.contains(&format!("          {} (", share.kernel)), "{text}");
            for named in &share.scenarios {
                assert!(text.contains(&format!(" {}", named.name)), "{}", named.name);
            }
        }
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn pairs_that_do_not_run_are_counted() {
        let catalogue = super::super::catalogue().unwrap();
        let all: usize = catalogue.iter().map(|named| named.scenario.kernels.len()).sum();
        let plan = plan(&catalogue);
        let left = all - plan.scenarios();
        assert!(
            plan.remainder(&catalogue)
                .starts_with(&format!("{left} of {all} pairs")),
            "{}",
            plan.remainder(&catalogue)
        );
    }

    #[test]
    fn guests_are_summed_up_by_kernel_and_failures_named() {
        let result = |scenario: &str, failures: &[&str]| ScenarioResult {
            kernel: "6.12".parse().unwrap(),
            scenario: scenario.to_owned(),
            took: Duration::from_secs(10),
            traffic: Vec::new(),
            matrix: None,
            failures: failures.iter().map(ToString::to_string).collect(),
        };
        let guest = |scenarios| GuestResult {
            kernel: "6.12".parse().unwrap(),
            took: Duration::from_secs(90),
            scenarios,
        };
        let guests = [
            guest(vec![result("a", &[]), result("b", &["no flow"])]),
            guest(vec![result("c", &[])]),
        ];
        let report = by_kernel(&guests);
        assert_eq!(report.tally.passed, 2);
        assert_eq!(report.tally.failures, ["scenario b on 6.12"]);
        let table = report.timing.table(Duration::from_mins(2), None).to_string();
        assert!(
            table.contains("6.12: 3 scenarios, 2 boots      3.0  guest time"),
            "{table}"
        );
    }
}
