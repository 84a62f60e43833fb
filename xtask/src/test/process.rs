//! Runs programs, with their output in a log.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::workspace;

/// Runs a program in the workspace's folder and returns whether it succeeded, and its output. Standard output and standard
/// error go into one file in `logs`, so that their lines stay in order; the file is kept if the program fails.
pub(super) fn run_logged(command: &mut Command, logs: &Path, title: &str) -> Result<(bool, String)> {
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
        eprintln!("    Kept  {}: the complete output", path.display());
    }
    Ok((status.success(), output))
}

/// Another command of this program.
pub(super) fn xtask(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(workspace::program()?);
    command.args(arguments);
    Ok(command)
}

/// A command of cargo.
pub(super) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args(arguments);
    command
}
