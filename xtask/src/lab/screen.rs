//! `cargo xtask lab --tui`: tracer's screen in a guest, on the terminal that it was asked for on.

use std::env;
use std::io::{IsTerminal as _, stdin, stdout};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tracer_lab::protocol::Terminal;
use tracer_lab::vm::kernels::Build;
use tracer_lab::vm::qemu::Qemu;
use tracer_lab::vm::run::Limits;

use super::play::{Lab, Manner, Programme};
use super::{CPUS, Wanted};

/// The user's terminal.
pub(super) const TERMINAL: &str = "/dev/tty";

/// What is played if nothing else is asked for: something of everything, and nothing that takes long.
pub(super) const SCENARIOS: [&str; 6] = [
    "healthy",
    "reuse-after-rst",
    "dest-unavailable",
    "rule-dropped",
    "no-listener",
    "backend-silent",
];

/// The user ends it.
pub(super) const LIMITS: Limits = Limits {
    ready: Duration::from_secs(90),
    silence: Duration::from_hours(24),
    total: Duration::from_hours(24),
};

/// What of the environment says what the terminal can show.
const ENVIRONMENT: [&str; 6] = ["TERM", "COLORTERM", "NO_COLOR", "LANG", "LC_ALL", "LC_CTYPE"];

/// Shows it until the user ends it.
pub(super) fn show(mut wanted: Vec<Wanted<'_>>, build: Build) -> Result<ExitCode> {
    ensure!(
        stdin().is_terminal() && stdout().is_terminal(),
        "--tui needs a terminal"
    );
    ensure!(
        wanted.len() == 1,
        "--tui shows one kernel: give one with --kernel"
    );
    let Wanted {
        kernel: name,
        scenarios,
        ..
    } = wanted.remove(0);
    let before = stty(&["-g"])?;
    let lab = Lab::prepare(Manner {
        screen: Some(terminal()?),
        build,
        ..Manner::default()
    })?;
    let kernel = lab.kernel(&name)?;
    let qemu = Qemu::find(lab.cache(), &kernel)?;
    eprintln!(
        "   Guest  boots {}; tracer's screen comes when its hooks are attached (half a minute where QEMU emulates); \
         q ends it. The guest does not learn of it when this window changes its size: leave it as it is",
        kernel.release
    );
    let programme = Programme {
        name,
        kernel,
        cpus: CPUS,
        scenarios,
    };
    let (shown, farewell) = lab.show(&qemu, &programme);
    // QEMU leaves the terminal as it needed it.
    let restored = stty(&[&before]).or_else(|_| stty(&["sane"]));
    println!();
    shown?;
    restored?;
    ensure!(farewell.is_empty(), "{}", farewell.join("; "));
    Ok(ExitCode::SUCCESS)
}

fn terminal() -> Result<Terminal> {
    let size = stty(&["size"])?;
    let mut numbers = size.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(lines)), Some(Ok(columns))) = (numbers.next(), numbers.next()) else {
        return Err(anyhow!("stty tells no size of this terminal, but: {size}"));
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
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "stty failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
