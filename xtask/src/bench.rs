//! `cargo xtask bench`: measures what tracer costs.

mod budget;
mod check;
mod guest;
mod host;
mod results;
mod table;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use tracer_lab::scenario::KernelName;

use crate::lab::runner::Lab;
use crate::priority::Priority;
use crate::workspace;
use results::Results;

/// The file with the tables.
const DOCUMENT: &str = "BENCHMARKS.md";

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernel series of the guest; 7 is the newest 7.x
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: KernelName,
    /// Measure only the most important rows, and print the tables
    #[arg(long)]
    quick: bool,
    /// Fail if a figure of the guest is more than 5 % worse than in bench.json
    #[arg(long)]
    check: bool,
}

impl Arguments {
    /// The command line that measures the same.
    fn command(&self) -> String {
        let kernel = match self.kernel.to_string() {
            kernel if kernel == "6.12" => String::new(),
            kernel => format!(" --kernel {kernel}"),
        };
        let quick = if self.quick { " --quick" } else { "" };
        let check = if self.check { " --check" } else { "" };
        format!("cargo xtask bench{kernel}{quick}{check}")
    }
}

/// Measures. A full run without `--check` writes BENCHMARKS.md and bench.json, others print the tables.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let committed = arguments.check.then(Results::committed).transpose()?;
    let mut results = Results {
        command: arguments.command(),
        date: results::today(),
        ..Results::default()
    };
    let lab = Lab::prepare(Priority::Normal)?;
    guest::measure(&lab, &arguments.kernel, arguments.quick, &mut results)?;
    if let Err(error) = host::measure(&guest::recorded(&lab), arguments.quick, &mut results) {
        results.miss(format!("the host: {error:#}"));
    }
    let document = table::document(&results);
    println!("{document}");
    let Some(committed) = committed else {
        if !arguments.quick {
            let path = workspace::root().join(DOCUMENT);
            fs::write(&path, document).with_context(|| format!("cannot write {}", path.display()))?;
            results.save()?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let comparison = check::compare(&committed, &results);
    ensure!(
        comparison.compared > 0,
        "no figure to compare with the committed ones"
    );
    for regression in &comparison.regressions {
        println!("worse: {regression}");
    }
    println!(
        "{} of {} figures are more than 5 % worse than on {}",
        comparison.regressions.len(),
        comparison.compared,
        committed.date
    );
    Ok(if comparison.regressions.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
