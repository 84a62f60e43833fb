//! `cargo xtask fuzz`: hostile recordings, records and facts, made by libFuzzer.
//!
//! The targets are in `tracer/fuzz`. cargo-fuzz is not needed: what it would add to the build are flags of the stable
//! compiler, and its sanitizers look for what safe code cannot do.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// A target, the longest input that it is given, and what it begins with.
struct Target {
    name: &'static str,
    longest: u32,
    /// Begins with the recordings of the tests.
    reads_recordings: bool,
}

const TARGETS: [Target; 4] = [
    Target {
        name: "reader",
        longest: 1 << 16,
        reads_recordings: true,
    },
    Target {
        name: "items",
        longest: 1 << 18,
        reads_recordings: true,
    },
    Target {
        name: "records",
        longest: 1 << 13,
        reads_recordings: false,
    },
    Target {
        name: "facts",
        longest: 1 << 13,
        reads_recordings: false,
    },
];

/// Tells libFuzzer which ways an input takes. The counters are there without any sanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Named, so that flags are not for build scripts.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// A run of fewer seconds begins with the seeds alone, and goes the same way each time as far as it gets.
const SHORT: u32 = 30;
/// No input may take more memory or time.
const BOUNDS: [&str; 3] = ["-rss_limit_mb=2048", "-malloc_limit_mb=512", "-timeout=20"];

/// What `cargo xtask fuzz` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long each target is run
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Build them, and run none
    #[arg(long, conflicts_with = "targets")]
    build: bool,
    /// reader, items, records or facts; all of them if none is named
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|target| target.name))]
    targets: Vec<String>,
}

/// Builds the targets and runs them, one after the other. What a target fails on is kept and named.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = workspace::root()
        .canonicalize()
        .context("cannot find the workspace")?;
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
    ensure!(built.success(), "the fuzz targets do not build");
    if arguments.build {
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = false;
    let named = |target: &&Target| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
    };
    for target in TARGETS.iter().filter(named) {
        eprintln!("    Fuzz  {} for {} s", target.name, arguments.seconds);
        // What long runs have found takes long to begin with, and is not there everywhere.
        let is_short = arguments.seconds < SHORT;
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
            .args(BOUNDS)
            .arg(format!("-max_total_time={}", arguments.seconds))
            .arg(format!("-max_len={}", target.longest))
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

/// Folders with inputs to begin with; nothing is written there.
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
