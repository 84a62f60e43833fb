//! `cargo xtask test`: everything that must pass, and a count of it.

mod step;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use tracer_lab::packages::Cache;
use tracer_lab::scenario::{self, KernelName, Named};

use crate::lab::play::{Lab, Manner, Played};
use crate::lab::play_all;
use crate::lab::tell::Detail;
use crate::workspace;
use step::{Count, Step};

/// The kernels on which scenarios are played unless others are named.
const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "7", "5.10/pre-5.9"];

/// What `cargo xtask test` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The inner loop: format, lints and unit tests; no guest, no network
    #[arg(long, conflicts_with_all = ["kernels", "scenarios"])]
    quick: bool,
    /// Play scenarios on these kernels only, such as 6.12 or 5.10/pre-5.9
    #[arg(long = "kernel", value_name = "KERNEL", value_delimiter = ',')]
    kernels: Vec<KernelName>,
    /// Play these scenarios only
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
}

/// Runs it all, whatever fails on the way. The last line counts.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    // A misspelt name is to be known now and not in ten minutes.
    let catalogue = scenario::load(&workspace::scenarios())?;
    let wanted = if arguments.quick {
        Vec::new()
    } else {
        wanted(&catalogue, arguments)?
    };

    let cache = Cache::open()?;
    let mut count = Count::default();
    for step in Step::all().iter().filter(|step| step.quick || !arguments.quick) {
        count.add(step.run(&cache)?);
    }
    if !wanted.is_empty() {
        count.add(scenarios(wanted));
    }

    println!("\nSummary after {:.0} s", began.elapsed().as_secs_f64());
    for failure in &count.failures {
        println!("  FAILED  {failure}");
    }
    println!("{} passed, {} failed", count.passed, count.failed());
    Ok(count.verdict())
}

/// Which scenarios are played on which kernels.
fn wanted<'a>(catalogue: &'a [Named], arguments: &Arguments) -> Result<Vec<(KernelName, Vec<&'a Named>)>> {
    let known: BTreeSet<&str> = catalogue.iter().map(|named| named.name.as_str()).collect();
    if let Some(unknown) = arguments
        .scenarios
        .iter()
        .find(|name| !known.contains(name.as_str()))
    {
        bail!("there is no scenario {unknown}; `cargo xtask lab --list` names all");
    }
    let kernels = if arguments.kernels.is_empty() {
        KERNELS.iter().map(|name| name.parse()).collect::<Result<_>>()?
    } else {
        arguments.kernels.clone()
    };
    let asked_for =
        |named: &Named| arguments.scenarios.is_empty() || arguments.scenarios.contains(&named.name);
    let mut wanted = Vec::new();
    for kernel in kernels {
        let scenarios: Vec<&Named> = catalogue
            .iter()
            .filter(|named| asked_for(named) && named.scenario.runs_on(&kernel))
            .collect();
        if !scenarios.is_empty() {
            wanted.push((kernel, scenarios));
        }
    }
    ensure!(
        !wanted.is_empty(),
        "none of these scenarios runs on any of these kernels"
    );
    Ok(wanted)
}

fn scenarios(wanted: Vec<(KernelName, Vec<&Named>)>) -> Count {
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
fn play_twice(wanted: Vec<(KernelName, Vec<&Named>)>) -> Result<Vec<Played>> {
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
    over.extend(play_all(&lab, again.collect(), Detail::Verdicts, false)?);
    Ok(over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn every_scenario_is_played_somewhere() {
        let catalogue = scenario::load(&workspace::scenarios()).unwrap();
        let line = Line::parse_from(["test"]);
        let wanted = wanted(&catalogue, &line.arguments).unwrap();
        let played: BTreeSet<&str> = wanted
            .iter()
            .flat_map(|(_, scenarios)| scenarios.iter().map(|named| named.name.as_str()))
            .collect();
        assert_eq!(played.len(), catalogue.len());
    }

    #[test]
    fn a_scenario_that_is_not_there_is_an_error() {
        let catalogue = scenario::load(&workspace::scenarios()).unwrap();
        let line = Line::parse_from(["test", "--scenario", "no-such-thing"]);
        assert!(wanted(&catalogue, &line.arguments).is_err());
    }
}
