//! `cargo xtask test`: everything that must pass, and a count of it.

mod boots;
mod drill;
mod keys;
mod selection;
mod step;
mod tables;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::Result;
use tracer_lab::packages::Cache;
use tracer_lab::scenario::{self, KernelName, Named};

use crate::lab::play::{Lab, Manner, Played};
use crate::lab::tell::Detail;
use crate::lab::{Wanted, play_all};
use crate::{system, workspace};
use selection::Choice;
use step::{Count, Step, When};

/// What `cargo xtask test` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The inner loop: format, lints and unit tests; no guest, no network
    #[arg(long, conflicts_with_all = ["full", "kernels", "scenarios"])]
    quick: bool,
    #[command(flatten)]
    choice: Choice,
}

/// Runs it all, whatever fails on the way. The last line counts.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    // A misspelt name is to be known now and not in ten minutes.
    let catalogue = scenario::load(&workspace::scenarios())?;
    let shares = if arguments.quick {
        Vec::new()
    } else {
        arguments.choice.shares(&catalogue)?
    };

    let cache = Cache::open()?;
    if !arguments.quick {
        system::ensure_terminal()?;
    }
    let mut count = Count::default();
    let steps = Step::all(arguments.choice.is_full());
    let run = |when: When| {
        let mut count = Count::default();
        for step in steps.iter().filter(|step| step.when == when) {
            count.add(step.run(&cache, when == When::Beside)?);
        }
        anyhow::Ok(count)
    };
    if arguments.quick {
        for step in steps.iter().filter(|step| step.quick) {
            count.add(step.run(&cache, false)?);
        }
    } else {
        count.add(run(When::First)?);
    }
    if !shares.is_empty() {
        let left = selection::left(&shares);
        let first = shares[0].kernel.clone();
        let wanted = shares.into_iter().map(|share| (share.kernel, share.played));
        // Before two threads find at the same time that something must be installed.
        system::ensure_lab()?;
        // These wait most of their time, so they cost none beside the others.
        let (beside, drilled, played) = thread::scope(|scope| {
            let beside = scope.spawn(|| run(When::Beside));
            let drilled = scope.spawn(|| {
                let mut count = drill(&first);
                count.add(screen(&first));
                count
            });
            let played = scenarios(boots::cut(wanted));
            if !beside.is_finished() {
                eprintln!("    Wait  for what was begun beside the scenarios");
            }
            (beside.join(), drilled.join(), played)
        });
        count.add(match beside {
            Ok(Ok(beside)) => beside,
            Ok(Err(error)) => return Err(error),
            Err(_) => Count::of("the steps beside the scenarios", false),
        });
        count.add(drilled.unwrap_or_else(|_| Count::of("the drill and the screen", false)));
        count.add(played);
        count.add(run(When::Last)?);
        print!("\n{left}");
    }

    println!("\nSummary after {:.0} s", began.elapsed().as_secs_f64());
    for failure in &count.failures {
        println!("  FAILED  {failure}");
    }
    println!("{} passed, {} failed", count.passed, count.failed());
    Ok(count.verdict())
}

/// Whether the lab itself tells what fails from what does not.
fn drill(kernel: &KernelName) -> Count {
    let title = "scenarios that must fail do so, by name";
    let began = Instant::now();
    let wrong = drill::run(kernel).unwrap_or_else(|error| vec![format!("{error:#}")]);
    for line in &wrong {
        println!("{line}");
    }
    let verdict = if wrong.is_empty() { "passed" } else { "FAILED" };
    println!("{verdict}  {title} ({:.1} s)", began.elapsed().as_secs_f64());
    Count::of(title, wrong.is_empty())
}

/// Whether a user can find his way on the screen, in a guest.
fn screen(kernel: &KernelName) -> Count {
    let title = "the screen in a guest leads to the cause";
    let began = Instant::now();
    let outcome = keys::run(kernel);
    if let Err(error) = &outcome {
        println!("{error:#}");
    }
    let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
    println!("{verdict}  {title} ({:.1} s)", began.elapsed().as_secs_f64());
    Count::of(title, outcome.is_ok())
}

fn scenarios(wanted: Vec<Wanted<'_>>) -> Count {
    let mut count = Count::default();
    match play_twice(wanted) {
        Ok(all) => {
            for played in all {
                let subject = format!("scenario {} on {}", played.scenario, played.kernel);
                count.one(&subject, played.passed());
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            count.one("the lab", false);
        }
    }
    count
}

/// Plays everything, and once more what failed: an emulated guest on a busy machine may stand still for a second, and
/// seconds are what the scenarios are about. What fails twice has failed; what fails once is named.
fn play_twice(wanted: Vec<Wanted<'_>>) -> Result<Vec<Played>> {
    let lab = Lab::prepare(Manner::default())?;
    let first = play_all(&lab, wanted.clone(), Detail::Verdicts, false)?;
    let (mut over, failed): (Vec<_>, Vec<_>) = first.into_iter().partition(Played::passed);
    if failed.is_empty() {
        return Ok(over);
    }
    let has_failed = |kernel: &KernelName, named: &Named| {
        failed
            .iter()
            .any(|played| played.kernel == *kernel && played.scenario == named.name)
    };
    let again = wanted.into_iter().map(|mut boot| {
        boot.scenarios.retain(|named| has_failed(&boot.kernel, named));
        (boot.kernel, boot.scenarios)
    });
    println!("\nPlayed once more, because they failed:");
    for played in &failed {
        println!(
            "  {} on {}: {}",
            played.scenario,
            played.kernel,
            played.troubles.join("; ")
        );
    }
    over.extend(play_all(&lab, boots::cut(again), Detail::Verdicts, false)?);
    Ok(over)
}
