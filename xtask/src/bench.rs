//! `cargo xtask bench`: measures what tracer costs.

mod guest;
mod results;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use tracer_lab::scenario::KernelName;

use crate::lab::runner::Lab;
use crate::priority::Priority;
use results::Results;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernel series of the guest; 7 is the newest 7.x
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: KernelName,
    /// Measure only the most important rows, in two minutes
    #[arg(long)]
    quick: bool,
    /// Fail if a figure of the guest is more than 5 % worse than in bench.json
    #[arg(long)]
    check: bool,
}

/// Measures, and prints or writes the tables.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut results = Results::default();
    let lab = Lab::prepare(Priority::Normal)?;
    guest::measure(&lab, &arguments.kernel, arguments.quick, &mut results)?;
    results.save()?;
    Ok(ExitCode::SUCCESS)
}
