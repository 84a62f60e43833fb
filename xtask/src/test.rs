//! `cargo xtask test`: everything that must pass, and a count of it.

mod boots;
mod drill;
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
use crate::lab::play_all;
use crate::lab::tell::Detail;
use crate::{system, workspace};
use boots::Boot;
use selection::Choice;
use step::{Count, Step};

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
    let mut count = Count::default();
    for step in Step::all().iter().filter(|step| step.quick || !arguments.quick) {
        count.add(step.run(&cache)?);
    }
    if !shares.is_empty() {
        let left = selection::left(&shares);
        let first = shares[0].kernel.clone();
        let wanted = shares.into_iter().map(|share| (share.kernel, share.played));
        // Before two threads find at the same time that something must be installed.
        system::ensure_lab()?;
        // The drill waits most of its time, so it costs none beside the others.
        let (drilled, played) = thread::scope(|scope| {
            let drilled = scope.spawn(|| drill(&first));
            let played = scenarios(boots::cut(wanted));
            (drilled.join(), played)
        });
        count.add(drilled.unwrap_or_else(|_| Count::of("the drill", false)));
        count.add(played);
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

fn scenarios(wanted: Vec<Boot<'_>>) -> Count {
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
fn play_twice(wanted: Vec<Boot<'_>>) -> Result<Vec<Played>> {
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
    let again = wanted.into_iter().filter_map(|(kernel, mut scenarios)| {
        scenarios.retain(|named| has_failed(&kernel, named));
        (!scenarios.is_empty()).then_some((kernel, scenarios))
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
