//! The two programs that go into a guest: static, because the guest has nothing but them to start with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tracer_lab::packages::progress::Progress;

use crate::workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Static programs.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `tracer` itself.
    pub(crate) tracer: PathBuf,
    /// PID 1 of the guest.
    pub(crate) guest: PathBuf,
}

/// One line of what cargo says with `--message-format=json`.
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
pub(crate) fn build() -> Result<Programs> {
    let mut built = build_bins("tracer and lab-guest", &["tracer", "tracer-lab"])?;
    Ok(Programs {
        tracer: take(&mut built, "tracer")?,
        guest: take(&mut built, "lab-guest")?,
    })
}

/// Builds `tracer` alone.
pub(crate) fn tracer() -> Result<PathBuf> {
    take(&mut build_bins("tracer", &["tracer"])?, "tracer")
}

/// Builds the programs of these packages.
fn build_bins(what: &str, packages: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let _progress = Progress::spinner(&format!(
        "   Build  {what}, static (minutes where nothing is built yet)"
    ));
    let output = Command::new(workspace::cargo())
        .current_dir(workspace::root())
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .arg("--bins")
        .arg("--message-format=json-render-diagnostics")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the static build failed");

    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

fn take(built: &mut BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    built
        .remove(name)
        .with_context(|| format!("cargo built no program {name}"))
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
    fn programs_are_found_among_the_artifacts() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tracer_lab"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"lab-guest"},"executable":"/t/release/lab-guest"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found["lab-guest"], PathBuf::from("/t/release/lab-guest"));
    }
}
