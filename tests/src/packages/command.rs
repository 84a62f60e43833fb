//! Running the programs of Debian's package tools.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs a command and returns its output; its stderr becomes part of the error.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}; the lab needs Debian or Ubuntu"))?;
    if !output.status.success() {
        bail!(
            "{program} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
