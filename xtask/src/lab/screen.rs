//! `cargo xtask lab --tui`: tracer's screen in a guest, on the user's terminal.

use std::env;
use std::io::{IsTerminal as _, stdin, stdout};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use tracer_lab::protocol::Terminal;
use tracer_lab::vm::kernels::Build;
use tracer_lab::vm::qemu::Qemu;

use super::options::Options;
use super::plan::GuestPlan;
use super::runner::{Guest, Lab};
use crate::priority::Priority;

/// The default scenarios: a short one for each kind of failure.
pub(super) const DEFAULT_SCENARIOS: [&str; 6] = [
    "healthy",
    "reuse-after-rst",
    "dest-unavailable",
    "rule-dropped",
    "no-listener",
    "backend-silent",
];

/// Environment variables that describe the terminal.
const ENVIRONMENT: [&str; 6] = ["TERM", "COLORTERM", "NO_COLOR", "LANG", "LC_ALL", "LC_CTYPE"];

/// Shows the screen until the user quits.
pub(super) fn show(plan: &GuestPlan<'_>, build: Build) -> Result<ExitCode> {
    ensure!(
        stdin().is_terminal() && stdout().is_terminal(),
        "cannot show the screen: --tui needs a terminal"
    );
    let before = stty(&["-g"])?;
    let options = Options {
        screen: Some(terminal()?),
        build,
        ..Options::default()
    };
    let lab = Lab::prepare(Priority::Normal)?;
    let kernel = lab.kernel(&plan.kernel, build)?;
    let qemu = Qemu::find(lab.cache(), &kernel)?;
    eprintln!(
        "   Guest  boots {}; tracer's screen opens once its hooks are attached (30 s if QEMU emulates); q quits. Do not \
         resize this window: the guest does not see it",
        kernel.release
    );
    let guest = Guest {
        qemu: &qemu,
        kernel: &kernel,
        plan,
    };
    let (shown, notes) = lab.show_screen(guest, &options);
    // QEMU leaves the terminal in raw mode.
    let restored = stty(&[&before]).or_else(|_| stty(&["sane"]));
    println!();
    shown?;
    restored?;
    ensure!(notes.is_empty(), "{}", notes.join("; "));
    Ok(ExitCode::SUCCESS)
}

fn terminal() -> Result<Terminal> {
    let size = stty(&["size"])?;
    let mut numbers = size.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(lines)), Some(Ok(columns))) = (numbers.next(), numbers.next()) else {
        return Err(anyhow!("cannot read the size of the terminal from stty: {size}"));
    };
    let environment = ENVIRONMENT
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), env::var(name).ok()?)))
        .collect();
    Ok(Terminal {
        columns,
        lines,
        environment,
    })
}

fn stty(arguments: &[&str]) -> Result<String> {
    let output = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .output()
        .context("cannot run stty")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "stty failed: {}", stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
