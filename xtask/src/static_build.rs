//! Builds the programs of a guest. They are static, because the guest starts without libraries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tracer_lab::packages::progress::Progress;

use crate::priority::Priority;
use crate::workspace;

/// The target of static programs.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The compiler's flags for them.
pub(crate) const FLAGS: &str = "-C target-feature=+crt-static";

/// The static programs of a guest.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `tracer`.
    pub(crate) tracer: PathBuf,
    /// PID 1 of the guest.
    pub(crate) guest: PathBuf,
}

/// One line of cargo's output with `--message-format=json`.
#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    target: Option<CargoTarget>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
}

/// Builds `tracer` and `lab-guest`.
pub(crate) fn build(priority: Priority) -> Result<Programs> {
    let mut built = build_bins("tracer and lab-guest", &["tracer", "tracer-lab"], priority)?;
    Ok(Programs {
        tracer: take(&mut built, "tracer")?,
        guest: take(&mut built, "lab-guest")?,
    })
}

/// Builds `tracer` alone.
pub(crate) fn tracer() -> Result<PathBuf> {
    take(
        &mut build_bins("tracer", &["tracer"], Priority::Normal)?,
        "tracer",
    )
}

/// Builds the programs of these packages.
fn build_bins(what: &str, packages: &[&str], priority: Priority) -> Result<BTreeMap<String, PathBuf>> {
    let _progress = Progress::spinner(&format!("   Build  {what}, static (minutes the first time)"));
    let mut command = Command::new(workspace::cargo());
    command
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .arg("--bins")
        .arg("--message-format=json-render-diagnostics")
        .env("RUSTFLAGS", FLAGS);
    let output = priority
        .apply(command)
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cannot build {what} statically");

    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

fn take(built: &mut BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    built
        .remove(name)
        .with_context(|| format!("cannot find {name} among the programs that cargo built"))
}

fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<CargoMessage>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_artifacts() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tracer_lab"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"lab-guest"},"executable":"/t/release/lab-guest"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found["lab-guest"], PathBuf::from("/t/release/lab-guest"));
    }
}
