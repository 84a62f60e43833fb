//! The guest's part: instruction counts of traffic beside tracer.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tracer_lab::packages::{self, Dependencies, Suite, Tree};
use tracer_lab::protocol::{Bench, Job, Message};
use tracer_lab::scenario::KernelName;
use tracer_lab::vm::initramfs::{self, Parts};
use tracer_lab::vm::kernels::Build;
use tracer_lab::vm::qemu::{Accelerator, Machine, Qemu};
use tracer_lab::vm::run::{Boot, Limits};

use super::results::{Facts, Results};
use crate::lab::runner::Lab;
use crate::lab::session;
use crate::workspace;

/// The scenarios whose topologies are measured, the one with all of the traffic first.
const SCENARIOS: [&str; 3] = ["healthy", "healthy-iptables", "healthy-nftables"];

/// One CPU, because the clock counts its instructions; memory for pwru.
const MACHINE: Machine = Machine {
    cpus: 1,
    memory_mib: 2048,
    counts_instructions: true,
};

/// pwru takes minutes to attach, without a word.
const LIMITS: Limits = Limits {
    ready: Duration::from_mins(10),
    silence: Duration::from_mins(20),
    total: Duration::from_hours(2),
};

/// Boots a guest and measures. What could not be measured is among the misses of the results.
pub(super) fn measure(lab: &Lab, kernel: &KernelName, quick: bool, results: &mut Results) -> Result<()> {
    let pwru = if quick {
        None
    } else {
        pwru(lab)
            .map_err(|error| results.miss(format!("pwru: {error:#}")))
            .ok()
    };
    let kernel = lab.kernel(kernel, Build::default())?;
    let mut qemu = Qemu::find(lab.cache(), &kernel)?;
    // Only an emulated processor counts its instructions.
    qemu.accelerator = Accelerator::Tcg;
    results.facts = Facts::of_machine(&qemu, &kernel.release, pwru.as_ref());

    let scenarios = if quick { &SCENARIOS[..1] } else { &SCENARIOS[..] };
    let job = Job {
        scenarios: scenarios.iter().map(|&name| name.to_owned()).collect(),
        keep_path: false,
        without_tracer: false,
        depth: None,
        demo: false,
        verbose: false,
        recordings: false,
        screen: None,
        bench: Some(Bench {
            quick,
            pwru: pwru.is_some(),
        }),
        modules: Vec::new(),
    };
    let files: Vec<PathBuf> = scenarios
        .iter()
        .map(|name| workspace::scenarios().join(format!("{name}.toml")))
        .collect();
    let runs = lab.cache().root().join("runs");
    fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&runs)
        .with_context(|| format!("cannot create a folder in {}", runs.display()))?;
    let initramfs = folder.path().join("initramfs");
    let parts = Parts {
        cache: &lab.cache().root().join("initramfs"),
        kernel: &kernel,
        tools: lab.tools(),
        init: &lab.programs().guest,
        tracer: &lab.programs().tracer,
        kubernetes: None,
        pwru: pwru.as_ref().map(|tree| tree.root.as_path()),
        scenarios: &files,
        job: &job,
    };
    initramfs::build(parts, &initramfs)?;
    let boot = Boot {
        qemu: &qemu,
        kernel: &kernel,
        machine: MACHINE,
        initramfs: &initramfs,
        console: &folder.path().join("console"),
        screen: None,
        limits: LIMITS,
    };
    let mut recording = Vec::new();
    boot.run(|message| follow(message, results, &mut recording))
        .inspect_err(|_| {
            let kept = folder.keep();
            eprintln!("    Kept  {}: initramfs and console", kept.display());
        })?;
    if recording.is_empty() {
        return Ok(());
    }
    let path = recorded(lab);
    fs::write(&path, recording).with_context(|| format!("cannot write {}", path.display()))
}

/// The recording of the guest's traffic, if there has been a full run.
pub(super) fn recorded(lab: &Lab) -> PathBuf {
    lab.cache().root().join("bench.trace")
}

/// Debian's pwru with its libraries.
fn pwru(lab: &Lab) -> Result<Tree> {
    packages::unpack(
        lab.cache(),
        &[Suite::TRIXIE, Suite::TRIXIE_SECURITY],
        &["pwru"],
        Dependencies::All,
    )
}

fn follow(message: Message, results: &mut Results, recording: &mut Vec<u8>) {
    match message {
        Message::Ready { release } => eprintln!("      Up  Linux {release}"),
        Message::Begin { scenario } => eprintln!("   Bench  the topology of {scenario}"),
        Message::Note { text } => eprintln!("          {text}"),
        Message::Measurement(measurement) => {
            eprintln!("          {}", super::table::line(&measurement));
            results.add(measurement);
        }
        Message::Recording { hex } => recording.extend(session::bytes(&hex)),
        Message::ProgramCost(cost) => results.programs.push(cost),
        Message::End {
            scenario,
            why: Some(why),
            ..
        } => results.miss(format!("{scenario}: {why}")),
        _ => {}
    }
}
