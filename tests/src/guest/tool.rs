//! The node's tools, run as an administrator would run them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// The PATH in the initramfs.
pub(super) const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// Runs a command line whose words contain no blanks, and returns its output.
pub(super) fn run(line: &str) -> Result<String> {
    let output = command(line)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{line}`"))?;
    printed(line, output)
}

/// Runs a command line with this standard input, and returns its output.
pub(super) fn run_with_input(line: &str, input: &str) -> Result<String> {
    let mut child = command(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{line}`"))?;
    // The input is shorter than a pipe buffer, so neither side can block the other. The input ends when its
    // handle goes out of scope. A tool that refuses its input early says why on its standard error.
    let written = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for `{line}`"))?;
    let printed = printed(line, output).map_err(|error| anyhow!("{error:#}; the input was:\n{input}"))?;
    written
        .transpose()
        .with_context(|| format!("cannot write to `{line}`"))?;
    Ok(printed)
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).env("PATH", PATH);
    command
}

fn printed(line: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed invalid UTF-8"))
}
