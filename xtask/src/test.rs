//! `cargo xtask test`: runs every check and counts the results.

mod boots;
mod drill;
mod output;
mod phrases;
mod process;
mod python;
mod report;
mod scenarios;
mod screen;
mod selection;
mod spelling;
mod step;
mod steps;
mod tables;
mod tally;
mod timing;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use tracer_lab::packages::Cache;
use tracer_lab::scenario::{self, Named};
use tracer_lab::vm::kernels::Build;

use crate::lab::runner::Lab;
use crate::priority::Priority;
use crate::{system, workspace};
use report::Report;
use scenarios::Plan;
use selection::Selection;
use step::{Step, When, print_result};
use timing::{RUN_BUDGET, SCENARIO_BUDGET, Share};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run only the fast checks, without guests or network
    #[arg(long, conflicts_with_all = ["full", "kernels", "scenarios"])]
    quick: bool,
    #[command(flatten)]
    selection: Selection,
}

/// Runs all checks, even after one fails. The last line counts them: `N passed, N failed`.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    // A misspelt name must fail now, not in ten minutes.
    let catalogue = catalogue()?;
    let cache = Cache::open()?;
    let steps = steps::all(arguments.selection.is_full());
    let mut report = Report::default();
    let mut budget = None;
    if arguments.quick {
        report.add(run_steps(&steps, |step| step.quick, &cache, Priority::Normal));
    } else {
        let is_default = arguments.selection.is_default();
        budget = is_default.then_some(RUN_BUDGET);
        let shares = arguments.selection.shares(&catalogue)?;
        let plan = Plan::new(shares, is_default.then_some(SCENARIO_BUDGET));
        eprint!("{plan}");
        // Done first: otherwise two threads could try to install the same program at once.
        system::ensure_lab()?;
        system::ensure_terminal()?;
        report.add(run_with_scenarios(&steps, &plan, &cache));
        print!("\n{}", plan.remainder(&catalogue));
    }

    let total = began.elapsed();
    println!("\n{}", report.timing.table(total, budget));
    println!("Summary after {:.0} s", total.as_secs_f64());
    for failure in &report.tally.failures {
        println!("  FAILED  {failure}");
    }
    println!("{} passed, {} failed", report.tally.passed, report.tally.failed());
    Ok(report.tally.exit_code())
}

/// All scenarios, including those of a real control plane.
fn catalogue() -> Result<Vec<Named>> {
    let mut all = scenario::load(&workspace::scenarios())?;
    all.extend(scenario::load(&workspace::kubernetes_scenarios())?);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Runs all steps and scenarios.
fn run_with_scenarios(steps: &[Step], plan: &Plan<'_>, cache: &Cache) -> Report {
    let run = |when: When, priority| run_steps(steps, |step| step.when == when, cache, priority);
    let mut report = Report::default();
    // The static build and the kernels use the CPU and network capacity that the first steps leave.
    let (first, lab, waited) = thread::scope(|scope| {
        let lab = scope.spawn(|| prepare(plan));
        let first = run(When::First, Priority::Normal);
        let began = Instant::now();
        if !lab.is_finished() {
            eprintln!("    Wait  for the static build and the kernels");
        }
        (first, lab.join(), began.elapsed())
    });
    report.add(first);
    let title = "static build and kernels (rest)";
    report.timing.add(title, waited, Share::Alone);
    let lab = match lab.unwrap_or_else(|_| Err(anyhow!("its thread panicked"))) {
        Ok(lab) => lab,
        Err(error) => {
            println!("error: cannot prepare the lab: {error:#}");
            report.add(Report::failed("the lab"));
            return report;
        }
    };

    let (parallel, others, scenarios, waited) = thread::scope(|scope| {
        let parallel = scope.spawn(|| run(When::Parallel, Priority::Idle));
        // Their guests mostly wait, so they cost little in parallel with the others.
        let others = scope.spawn(|| {
            let kernel = plan.first_kernel();
            let mut report = check("the lab reports failures that it must detect", || {
                drill::run(&lab, kernel)
            });
            report.add(check("the screen in a guest leads to the cause", || {
                screen::run(kernel).map(|()| Vec::new())
            }));
            report
        });
        let scenarios = scenarios::run(&lab, plan);
        let began = Instant::now();
        if !parallel.is_finished() {
            eprintln!("    Wait  for the steps in parallel with the scenarios");
        }
        (parallel.join(), others.join(), scenarios, began.elapsed())
    });
    report.add(scenarios);
    report.add(others.unwrap_or_else(|_| Report::failed("drills and screen")));
    let title = "the steps in parallel with the scenarios";
    report.add(parallel.unwrap_or_else(|_| Report::failed(title)));
    let title = "steps in parallel with the scenarios (rest)";
    report.timing.add(title, waited, Share::Alone);
    report.add(run(When::Last, Priority::Normal));
    report
}

/// Runs the steps that `is_due` selects, one after the other.
fn run_steps(steps: &[Step], is_due: impl Fn(&Step) -> bool, cache: &Cache, priority: Priority) -> Report {
    let mut report = Report::default();
    for step in steps.iter().filter(|step| is_due(step)) {
        report.add(step.run(cache, priority));
    }
    report
}

/// Builds the guest's programs, at low priority, and fetches the kernels of a plan and the control plane.
fn prepare(plan: &Plan<'_>) -> Result<Lab> {
    let lab = Lab::prepare(Priority::Low)?;
    for kernel in plan.kernels() {
        lab.kernel(kernel, Build::default())?;
    }
    for guest in plan.guests() {
        lab.control_plane(guest)?;
    }
    Ok(lab)
}

/// Runs a check in its own guest, in parallel with the scenarios, and prints the faults it found.
fn check(title: &str, find: impl FnOnce() -> Result<Vec<String>>) -> Report {
    let began = Instant::now();
    let findings = find().unwrap_or_else(|error| vec![format!("{error:#}")]);
    for finding in &findings {
        println!("{finding}");
    }
    let took = began.elapsed();
    print_result(title, findings.is_empty(), took.as_secs_f64());
    Report::of(title, findings.is_empty(), took, Share::Parallel)
}
