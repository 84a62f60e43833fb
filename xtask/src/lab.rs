//! `cargo xtask lab`: runs scenarios on real kernels in QEMU and checks tracer's output against their expectations.

pub(crate) mod observer;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod printer;
pub(crate) mod result;
pub(crate) mod runner;
mod screen;
pub(crate) mod session;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use tracer_lab::scenario::{self, Flavour, KernelName, Named};
use tracer_lab::vm::kernels::Build;

use crate::priority::Priority;
use crate::workspace;
use options::Options;
use plan::{GUEST_CPUS, GuestPlan};
use printer::PrintMode;
use result::ScenarioResult;
use runner::Lab;

/// Arguments of `cargo xtask lab`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(crate) struct Arguments {
    /// Kernel series; 7 is the newest 7.x
    #[arg(
        long = "kernel",
        value_name = "KERNEL",
        value_delimiter = ',',
        default_value = "6.12"
    )]
    kernels: Vec<KernelName>,
    /// Scenarios to run, in this order [default: all for the kernel]
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// IPVS that drops SYNs from reused ports
    #[arg(long, value_name = "FLAVOUR", value_parser = ["pre-5.9"])]
    ipvs: Option<String>,
    /// Debian build of the kernel: cloud, generic or rt
    #[arg(long, value_name = "BUILD", default_value_t)]
    build: Build,
    /// Run the scenarios with a real control plane; the first run builds it
    #[arg(long, conflicts_with = "tui")]
    kubernetes: bool,
    /// List the scenarios and exit
    #[arg(long)]
    list: bool,
    /// Only generate the traffic, without tracer
    #[arg(long)]
    without_tracer: bool,
    /// Run tracer at this depth
    #[arg(long, value_name = "DEPTH", value_parser = ["auto", "light", "full"])]
    depth: Option<String>,
    /// Open tracer's screen in the guest and repeat the scenarios
    #[arg(long, conflicts_with_all = ["without_tracer", "verbose", "recordings"])]
    tui: bool,
    /// Print evidence and path of each flow
    #[arg(long, short)]
    verbose: bool,
    /// Save the recording of each scenario in this folder
    #[arg(long, value_name = "FOLDER")]
    recordings: Option<PathBuf>,
}

/// Runs the selected scenarios.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let folder = if arguments.kubernetes {
        workspace::kubernetes_scenarios()
    } else {
        workspace::scenarios()
    };
    let catalogue = scenario::load(&folder)?;
    if arguments.list {
        list(&catalogue);
        return Ok(ExitCode::SUCCESS);
    }
    let mut plans = plans(arguments, &catalogue)?;
    if arguments.tui {
        ensure!(
            plans.len() == 1,
            "cannot show several kernels on one screen: give one with --kernel"
        );
        return screen::show(&plans.remove(0), arguments.build);
    }
    let lab = Lab::prepare(Priority::Normal)?;
    let options = Options {
        without_tracer: arguments.without_tracer,
        depth: arguments.depth.clone(),
        verbose: arguments.verbose,
        recordings: arguments.recordings.clone(),
        build: arguments.build,
        ..Options::default()
    };
    let mode = if plans.len() > 1 {
        PrintMode::PerScenario
    } else {
        PrintMode::Live
    };
    report(&lab, plans, &options, mode)
}

/// Runs scenarios in one guest.
pub(crate) fn run_scenarios(kernel: &KernelName, scenarios: Vec<&Named>) -> Result<ExitCode> {
    let plan = GuestPlan {
        kernel: kernel.clone(),
        cpus: GUEST_CPUS,
        scenarios,
    };
    let lab = Lab::prepare(Priority::Normal)?;
    report(&lab, vec![plan], &Options::default(), PrintMode::Live)
}

/// Runs guests and prints how many scenarios passed.
fn report(lab: &Lab, plans: Vec<GuestPlan<'_>>, options: &Options, mode: PrintMode) -> Result<ExitCode> {
    let guests = pool::run(lab, plans, options, mode)?;
    let results: Vec<&ScenarioResult> = guests.iter().flat_map(|guest| &guest.scenarios).collect();
    let failed = results.iter().filter(|result| !result.passed()).count();
    println!("\n{} passed, {failed} failed", results.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One guest for each kernel, with the selected scenarios that support it.
fn plans<'a>(arguments: &Arguments, catalogue: &'a [Named]) -> Result<Vec<GuestPlan<'a>>> {
    let names = if arguments.tui && arguments.scenarios.is_empty() {
        screen::DEFAULT_SCENARIOS.map(str::to_owned).to_vec()
    } else {
        arguments.scenarios.clone()
    };
    let mut plans = Vec::new();
    for kernel in &arguments.kernels {
        let mut kernel = kernel.clone();
        if arguments.ipvs.is_some() {
            kernel.flavour = Flavour::Pre59;
        }
        let scenarios = scenario::select(catalogue, &names, &kernel)?;
        ensure!(
            !scenarios.is_empty(),
            "no scenario supports kernel {kernel}; `cargo xtask lab --list` shows the kernels of each"
        );
        plans.push(GuestPlan {
            kernel,
            cpus: GUEST_CPUS,
            scenarios,
        });
    }
    Ok(plans)
}

fn list(catalogue: &[Named]) {
    for Named { name, scenario, .. } in catalogue {
        let kernels: Vec<String> = scenario.kernels.iter().map(ToString::to_string).collect();
        let line = format!("{name}\n    {}\n    on {}\n", scenario.title, kernels.join(", "));
        // A closed pipe, for example `| head`, is not an error.
        if io::stdout().write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}
