//! `cargo xtask soak`: runs tracer for minutes and checks that its resource use does not grow.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tracer_lab::scenario::{self, KernelName};

use crate::{lab, workspace};

/// The scenario, without `.toml`.
const SCENARIO: &str = "endurance";
/// How long the scenario lasts as it is in its file.
const MINUTES: &str = "\nminutes = 1\n";

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Minutes of traffic
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=240))]
    minutes: u32,
    /// Kernel series; 7 is the newest 7.x
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: KernelName,
}

/// Runs the scenario for longer than its file says.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let name = format!("{SCENARIO}.toml");
    let file = workspace::scenarios().join(&name);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        text.contains(MINUTES),
        "{} does not last one minute",
        file.display()
    );
    let text = text.replacen(MINUTES, &format!("\nminutes = {}\n", arguments.minutes), 1);
    let folder = tempfile::tempdir().context("cannot create a folder")?;
    let file = folder.path().join(&name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let catalogue = scenario::load(folder.path())?;
    let scenarios = scenario::select(&catalogue, &[], &arguments.kernel)?;
    ensure!(
        !scenarios.is_empty(),
        "{SCENARIO} does not run on kernel {}; `cargo xtask lab --list` shows its kernels",
        arguments.kernel
    );
    lab::run_scenarios(&arguments.kernel, scenarios)
}
