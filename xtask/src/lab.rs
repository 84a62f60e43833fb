//! `cargo xtask lab`: plays scenarios on real kernels and holds tracer's words against what they expect.

pub(crate) mod play;
mod screen;
pub(crate) mod tell;

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};
use tracer_lab::scenario::{self, Flavour, KernelName, Named};
use tracer_lab::vm::kernels::Build;
use tracer_lab::vm::qemu::Qemu;

use crate::workspace;
use play::{Lab, Manner, Played, Programme};
use tell::{Detail, Tally, Teller};

/// How many processors a guest has: enough for what happens on two at once.
pub(crate) const CPUS: u8 = 2;

/// One boot that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    /// Of which kernel.
    pub(crate) kernel: KernelName,
    /// With how many processors.
    pub(crate) cpus: u8,
    /// What is played on it, in order.
    pub(crate) scenarios: Vec<&'a Named>,
}

/// How many guests run at the same time: one a core, for an emulated guest keeps about one busy, and no more than the
/// memory of a small machine can hold.
pub(crate) fn guests() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}

/// What `cargo xtask lab` can be told.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that have nothing to do with each other"
)]
pub(crate) struct Arguments {
    /// Kernel series, such as 5.10, 6.12 or 7 for the newest 7.x; several run in parallel
    #[arg(
        long = "kernel",
        value_name = "KERNEL",
        value_delimiter = ',',
        default_value = "6.12"
    )]
    kernels: Vec<KernelName>,
    /// Scenarios to play, in this order [default: all that run on the kernel]
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Which IPVS the kernel gets: pre-5.9 drops the SYN on every reuse, as kernels before 5.9 did
    #[arg(long, value_name = "FLAVOUR", value_parser = ["pre-5.9"])]
    ipvs: Option<String>,
    /// Which of Debian's builds of the kernel: cloud, generic or rt (with `PREEMPT_RT`)
    #[arg(long, value_name = "BUILD", default_value_t)]
    build: Build,
    /// Only say which scenarios there are
    #[arg(long)]
    list: bool,
    /// Play the traffic alone, without tracer
    #[arg(long)]
    without_tracer: bool,
    /// Open tracer's screen in the guest, here, over scenarios that are played again and again; q ends it
    #[arg(long, conflicts_with_all = ["without_tracer", "verbose", "recordings"])]
    tui: bool,
    /// Print evidence and path of each flow
    #[arg(long, short)]
    verbose: bool,
    /// Keep what tracer recorded of each scenario in this folder
    #[arg(long, value_name = "FOLDER")]
    recordings: Option<PathBuf>,
}

/// Plays what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let catalogue = scenario::load(&workspace::scenarios())?;
    if arguments.list {
        list(&catalogue);
        return Ok(ExitCode::SUCCESS);
    }
    let mut wanted = Vec::new();
    for kernel in &arguments.kernels {
        let mut kernel = kernel.clone();
        if arguments.ipvs.is_some() {
            kernel.flavour = Flavour::Pre59;
        }
        let names = if arguments.tui && arguments.scenarios.is_empty() {
            screen::SCENARIOS.map(str::to_owned).to_vec()
        } else {
            arguments.scenarios.clone()
        };
        let scenarios = scenario::select(&catalogue, &names, &kernel)?;
        ensure!(
            !scenarios.is_empty(),
            "no scenario runs on {kernel}; `cargo xtask lab --list` names all, and their kernels"
        );
        wanted.push(Wanted {
            kernel,
            cpus: CPUS,
            scenarios,
        });
    }
    if arguments.tui {
        return screen::show(wanted, arguments.build);
    }
    let lab = Lab::prepare(Manner {
        without_tracer: arguments.without_tracer,
        verbose: arguments.verbose,
        recordings: arguments.recordings.clone(),
        build: arguments.build,
        ..Manner::default()
    })?;
    let detail = if wanted.len() > 1 {
        Detail::Blocks
    } else {
        Detail::Live
    };
    let played = play_all(&lab, wanted, detail, arguments.verbose)?;
    let failed = played.iter().filter(|played| !played.passed()).count();
    println!("\n{} passed, {failed} failed", played.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Fetches the kernels and plays on each of them what is wanted, several at a time.
pub(crate) fn play_all(
    lab: &Lab,
    wanted: Vec<Wanted<'_>>,
    detail: Detail,
    verbose: bool,
) -> Result<Vec<Played>> {
    let mut programmes = VecDeque::new();
    for Wanted {
        kernel: name,
        cpus,
        scenarios,
    } in wanted
    {
        let kernel = lab.kernel(&name)?;
        eprintln!(
            "  Kernel  {name} is {}, {} scenario{}",
            kernel.release,
            scenarios.len(),
            if scenarios.len() == 1 { "" } else { "s" }
        );
        programmes.push_back(Programme {
            name,
            kernel,
            cpus,
            scenarios,
        });
    }

    let Some(first) = programmes.front() else {
        return Ok(Vec::new());
    };
    let qemu = Qemu::find(lab.cache(), &first.kernel)?;

    let tally = Tally::of(programmes.iter().map(|programme| programme.scenarios.len()).sum());
    let queue = Mutex::new(programmes);
    let over = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.pop_front();
    thread::scope(|scope| {
        for _ in 0..guests() {
            scope.spawn(|| {
                while let Some(programme) = next() {
                    let mut teller = Teller::new(&programme.name, detail, verbose, &tally);
                    let played = lab.play(&qemu, &programme, &mut teller);
                    if let Ok(mut over) = over.lock() {
                        over.extend(played);
                    }
                }
            });
        }
    });
    over.into_inner()
        .context("a thread that ran a guest has panicked")
}

fn list(catalogue: &[Named]) {
    for Named { name, scenario, .. } in catalogue {
        let kernels: Vec<String> = scenario.kernels.iter().map(ToString::to_string).collect();
        let line = format!("{name}\n    {}\n    on {}\n", scenario.title, kernels.join(", "));
        // Who has seen enough closes the pipe.
        if io::stdout().write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}
