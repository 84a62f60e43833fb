//! `cargo xtask fuzz`: feeds hostile recordings, records and node facts to their readers, with libFuzzer.
//!
//! The targets are in `tracer/fuzz`. cargo-fuzz is not needed: the compiler flags that it adds are stable, and its sanitizers
//! look for errors that safe code cannot make.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// A fuzz target.
struct Target {
    name: &'static str,
    /// The longest input, in bytes.
    max_len: u32,
    /// Whether the recordings of the tests are among its seeds.
    reads_recordings: bool,
}

const TARGETS: [Target; 6] = [
    Target {
        name: "reader",
        max_len: 1 << 16,
        reads_recordings: true,
    },
    Target {
        name: "items",
        max_len: 1 << 18,
        reads_recordings: true,
    },
    Target {
        name: "records",
        max_len: 1 << 13,
        reads_recordings: false,
    },
    Target {
        name: "facts",
        max_len: 1 << 13,
        reads_recordings: false,
    },
    Target {
        name: "parsers",
        max_len: 1 << 13,
        reads_recordings: false,
    },
    Target {
        name: "pages",
        max_len: 1 << 16,
        reads_recordings: true,
    },
];

/// Coverage counters for libFuzzer. They need no sanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Named, so that the flags do not apply to build scripts.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// A shorter run, in seconds, starts from the seeds alone with a fixed random seed, so that it is repeatable.
const SHORT_RUN: u32 = 30;
/// Limits on memory and time for each input.
const LIMITS: [&str; 3] = ["-rss_limit_mb=2048", "-malloc_limit_mb=512", "-timeout=20"];

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Time for each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Only build the targets
    #[arg(long, conflicts_with = "targets")]
    build: bool,
    /// Targets to run [default: all]
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|target| target.name))]
    targets: Vec<String>,
}

/// Builds the targets and runs them one after the other. libFuzzer saves the input on which a target fails and prints its path.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = workspace::root()
        .canonicalize()
        .context("cannot find the folder of the workspace")?;
    let output = root.join("target/fuzz");
    eprintln!("   Build  fuzz targets");
    let built = Command::new(workspace::cargo())
        .current_dir(root.join("tracer/fuzz"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--target",
            PLATFORM,
            "--target-dir",
        ])
        .arg(&output)
        .env("RUSTFLAGS", FLAGS)
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "cannot build the fuzz targets");
    if arguments.build {
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = false;
    let named = |target: &&Target| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
    };
    for target in TARGETS.iter().filter(named) {
        eprintln!("    Fuzz  {} for {} s", target.name, arguments.seconds);
        // The corpus of long runs takes long to load, and other machines do not have it.
        let is_short = arguments.seconds < SHORT_RUN;
        let corpus = output
            .join(if is_short {
                "corpus-of-short-runs"
            } else {
                "corpus"
            })
            .join(target.name);
        if is_short && corpus.exists() {
            fs::remove_dir_all(&corpus).with_context(|| format!("cannot remove {}", corpus.display()))?;
        }
        let failures = output.join("failures");
        for folder in [&corpus, &failures] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut command = Command::new(output.join(PLATFORM).join("release").join(target.name));
        command
            .args(LIMITS)
            .arg(format!("-max_total_time={}", arguments.seconds))
            .arg(format!("-max_len={}", target.max_len))
            .arg(format!(
                "-artifact_prefix={}/{}-",
                failures.display(),
                target.name
            ))
            .args(["-print_final_stats=1", "-len_control=0"])
            .arg(format!("-dict={}", root.join("tracer/fuzz/items.dict").display()))
            .args(is_short.then_some("-seed=1"))
            .arg(&corpus)
            .args(seeds(target, &root));
        let status = command
            .status()
            .with_context(|| format!("cannot run {}", target.name))?;
        let verdict = if status.success() { "passed" } else { "FAILED" };
        println!("{verdict}  fuzz {}", target.name);
        failed |= !status.success();
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Folders with the first inputs; libFuzzer only reads them.
fn seeds(target: &Target, root: &std::path::Path) -> Vec<PathBuf> {
    let recordings = target
        .reads_recordings
        .then(|| root.join("tracer/tests/recordings"));
    let kept = root.join("tracer/fuzz/seeds").join(target.name);
    recordings
        .into_iter()
        .chain(kept.exists().then_some(kept))
        .collect()
}
