//! What is tested without a guest: one program each, whose output matters only if it fails.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use tracer_lab::packages::Cache;
use tracer_lab::packages::host;

use super::tables;
use crate::{system, workspace};

/// How much of a failed step's output is shown.
const TAIL: usize = 200;

/// The version of cargo-deny that is installed where there is none.
const CARGO_DENY: &str = "0.20.2";

/// How many passed, and which did not.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failures: Vec<String>,
}

impl Count {
    /// The count of one thing.
    pub(super) fn of(subject: &str, passed: bool) -> Self {
        let mut count = Self::default();
        count.one(subject, passed);
        count
    }

    pub(super) fn failed(&self) -> usize {
        self.failures.len()
    }

    pub(super) fn verdict(&self) -> ExitCode {
        if self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    pub(super) fn one(&mut self, subject: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failures.push(subject.to_owned());
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}

/// When a step is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before the scenarios.
    First,
    /// Beside the scenarios, with what time their guests leave: mostly compiling, and nothing that minds how long it takes.
    Beside,
    /// After the scenarios: seconds, of what was compiled meanwhile.
    Last,
}

/// One program to run.
#[derive(Debug)]
pub(super) struct Step {
    title: &'static str,
    /// A part of the inner loop: no network, and little time.
    pub(super) quick: bool,
    pub(super) when: When,
    command: fn(&Cache) -> Result<Command>,
    /// What its output counts, if it counts anything.
    counts: Option<fn(&str) -> Count>,
}

impl Step {
    /// All of them, the quickest to fail first.
    pub(super) fn all(is_full: bool) -> [Self; 9] {
        [
            Self {
                title: "format",
                quick: true,
                when: When::First,
                command: |_| Ok(cargo(&["fmt", "--all", "--check"])),
                counts: None,
            },
            Self {
                title: "lints",
                quick: true,
                when: When::Beside,
                command: |_| {
                    Ok(cargo(&[
                        "clippy",
                        "--quiet",
                        "--workspace",
                        "--all-targets",
                        "--",
                        "--deny",
                        "warnings",
                    ]))
                },
                counts: None,
            },
            Self {
                title: "unit tests",
                quick: true,
                when: When::First,
                command: |_| Ok(cargo(&["test", "--quiet", "--no-fail-fast"])),
                counts: Some(libtest),
            },
            Self {
                title: "the report's page in a browser",
                quick: false,
                when: When::First,
                command: |_| {
                    // Of all packages, as for the unit tests: of one alone it would be built with fewer features, anew.
                    let mut command = cargo(&["test", "--quiet", "--test", "html", "--", "--ignored"]);
                    command.env("TRACER_BROWSER", system::browser()?);
                    Ok(command)
                },
                counts: Some(libtest),
            },
            Self {
                title: "DuckDB and pandas read what is exported",
                quick: false,
                when: When::Beside,
                command: tables::command,
                counts: Some(|output| lines(output, "table: ")),
            },
            Self {
                title: "the fuzz targets build",
                quick: false,
                when: When::Beside,
                command: |_| ourselves(&["fuzz", "--build"]),
                counts: None,
            },
            Self {
                title: "hostile recordings end nothing",
                quick: false,
                when: When::Last,
                command: |_| ourselves(&["fuzz", "--seconds", "5"]),
                counts: Some(|output| lines(output, "")),
            },
            Self {
                title: "licences and sources of dependencies",
                quick: false,
                when: When::Beside,
                command: cargo_deny,
                counts: None,
            },
            if is_full {
                Self {
                    title: "the committed kernel half is what its source builds to",
                    quick: false,
                    when: When::Beside,
                    command: |_| ourselves(&["build-ebpf", "--check"]),
                    counts: None,
                }
            } else {
                // To build it takes a compiler that must be fetched, and minutes.
                Self {
                    title: "the committed kernel half was built from this source",
                    quick: true,
                    when: When::First,
                    command: |_| ourselves(&["build-ebpf", "--is-current"]),
                    counts: None,
                }
            },
        ]
    }

    /// Runs it, if need be with what time others leave; its output goes to a file and is shown if it fails.
    pub(super) fn run(&self, cache: &Cache, is_idle: bool) -> Result<Count> {
        let began = Instant::now();
        eprintln!("    Test  {} ...", self.title);
        let mut command = match (self.command)(cache) {
            Ok(command) => command,
            Err(error) => {
                println!("FAILED  {}: {error:#}", self.title);
                return Ok(Count::of(self.title, false));
            }
        };
        if is_idle {
            command = idle(&command);
        }
        let (passed, output) = run(&mut command, &cache.root().join("logs"), self.title)?;
        let mut count = self.counts.map_or_else(Count::default, |counts| counts(&output));
        // A program that fails without counting a failure has failed itself: it did not compile, say.
        if !passed && count.failed() == 0 {
            count.one(self.title, false);
        } else if self.counts.is_none() {
            count.one(self.title, passed);
        }
        if !passed {
            let lines: Vec<&str> = output.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
        let verdict = if passed { "passed" } else { "FAILED" };
        println!(
            "{verdict}  {} ({:.1} s)",
            self.title,
            began.elapsed().as_secs_f64()
        );
        Ok(count)
    }
}

/// Runs a program with both its outputs in one file, so that their lines stay in order.
pub(super) fn run(command: &mut Command, logs: &Path, title: &str) -> Result<(bool, String)> {
    fs::create_dir_all(logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let path = logs.join(format!("{}-{}.log", title.replace(' ', "-"), std::process::id()));
    let log = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let status = command
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log")?)
        .stderr(log)
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let output = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let output = String::from_utf8_lossy(&output).into_owned();
    if status.success() {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    } else {
        eprintln!("    Kept  {}: all that was printed", path.display());
    }
    Ok((status.success(), output))
}

/// The same command, for whenever nobody else wants a CPU.
fn idle(command: &Command) -> Command {
    let mut idle = Command::new("chrt");
    idle.args(["--idle", "0"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => idle.env(name, value),
            None => idle.env_remove(name),
        };
    }
    idle
}

/// Another command of this program.
fn ourselves(arguments: &[&str]) -> Result<Command> {
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args(arguments);
    command
}

/// cargo-deny from `PATH`, from `~/.cargo/bin` as `cargo` itself finds it, or built into the cache.
fn cargo_deny(cache: &Cache) -> Result<Command> {
    let folder = cache.root().join(format!("cargo-deny-{CARGO_DENY}"));
    let program = match host::find("cargo-deny") {
        Some(program) => program,
        None => folder.join("bin/cargo-deny"),
    };
    if !program.exists() {
        let _lock = cache.lock("cargo-deny")?;
        if !program.exists() {
            eprintln!("   Build  cargo-deny {CARGO_DENY}, once: some minutes");
            install_cargo_deny(&folder)?;
        }
    }
    let mut command = Command::new(program);
    // Without the subcommand's name it would take its first argument for that.
    command.args(["deny", "check", "bans", "licenses", "sources"]);
    Ok(command)
}

fn install_cargo_deny(folder: &Path) -> Result<()> {
    let mut install = cargo(&[
        "install",
        "cargo-deny",
        "--quiet",
        "--locked",
        "--version",
        CARGO_DENY,
    ]);
    install
        // It runs for a second: no time spent on making it fast is won back.
        .arg("--debug")
        .args(["--config", "profile.dev.debug=0"])
        .arg("--root")
        .arg(folder)
        .arg("--target-dir")
        .arg(folder.join("build"));
    let logs = folder.join("logs");
    let (installed, output) = run(&mut install, &logs, "install")?;
    if !installed {
        std::io::stderr().write_all(output.as_bytes()).ok();
        anyhow::bail!("cannot build cargo-deny");
    }
    // What it was built from is of no use any more, and large.
    fs::remove_dir_all(folder.join("build")).context("cannot remove cargo-deny's build")
}

/// Counts lines like our own: `passed  counts_by_fate_in_duckdb`. What failed is named with `what` in front.
fn lines(output: &str, what: &str) -> Count {
    let mut count = Count::default();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("passed  ") {
            count.one(name, true);
        } else if let Some(name) = line.strip_prefix("FAILED  ") {
            count.one(&format!("{what}{name}"), false);
        }
    }
    count
}

/// Counts what Rust's own test programs print:
/// `test result: ok. 43 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.04s`.
fn libtest(output: &str) -> Count {
    let mut count = Count::default();
    for line in output.lines() {
        let Some(result) = line.strip_prefix("test result: ") else {
            continue;
        };
        let number_of = |what: &str| -> usize {
            result
                .split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(what))
                .find_map(|number| number.trim().parse().ok())
                .unwrap_or_default()
        };
        count.passed += number_of("passed");
        for _ in 0..number_of("failed") {
            count.failures.push("a unit test".to_owned());
        }
    }
    name_failures(output, &mut count.failures);
    count
}

/// Failed tests are listed by name below a heading: `failures:`, then indented lines up to an empty one.
fn name_failures(output: &str, failures: &mut [String]) {
    let mut listing = false;
    let mut names = output.lines().filter_map(|line| {
        if line == "failures:" {
            listing = true;
            return None;
        }
        listing &= line.starts_with("    ");
        listing.then(|| line.trim())
    });
    for failure in failures {
        if let Some(name) = names.next() {
            *failure = format!("unit test {name}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_counted() {
        let output = "\nrunning 3 tests\n..F\nfailures:\n\n---- vm::cpio::tests::order stdout ----\nassertion failed\n\n\
                      \nfailures:\n    help_needs_no_privilege\n    vm::cpio::tests::order\n\n\
                      test result: FAILED. 2 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      \nrunning 4 tests\n....\ntest result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered \
                      out; finished in 0.04s\n";
        let count = libtest(output);
        assert_eq!(count.passed, 6);
        assert_eq!(
            count.failures,
            [
                "unit test help_needs_no_privilege",
                "unit test vm::cpio::tests::order"
            ]
        );
    }

    #[test]
    fn checks_of_our_own_programs_are_counted_by_name() {
        let output = "passed  types\nFAILED  times\nTraceback: …\npassed  steps\n2 passed, 1 failed\n";
        let count = lines(output, "table: ");
        assert_eq!(
            (count.passed, count.failures),
            (2, vec!["table: times".to_owned()])
        );
    }

    #[test]
    fn a_program_that_counts_nothing_adds_nothing() {
        assert_eq!(libtest("error: could not compile").passed, 0);
    }
}
