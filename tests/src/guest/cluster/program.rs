//! A program of the control plane, running in the background.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guest::cancel::Cancel;
use crate::guest::tool::PATH;

/// The folder of everything that the control plane writes.
pub(super) const FOLDER: &str = "/tmp/kubernetes";

/// How many lines of a log are part of an error.
const LAST_LINES: usize = 8;

/// How long a program may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Program {
    name: &'static str,
    child: Child,
}

impl Program {
    /// Starts it; its log is added to that of earlier runs.
    pub(super) fn start(name: &'static str, arguments: &[String]) -> Result<Self> {
        Self::start_in(name, arguments, || Ok(()))
    }

    /// Starts it from a thread of its own, which `enter` moves into other namespaces.
    pub(super) fn start_in(
        name: &'static str,
        arguments: &[String],
        enter: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Self> {
        let spawn = || {
            enter()?;
            command(name, arguments)?.spawn().context("cannot run it")
        };
        let child = thread::scope(|scope| {
            let spawned = scope.spawn(spawn).join();
            spawned.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        })
        .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child })
    }

    /// Waits until it is ready; fails if it exits before that.
    pub(super) fn wait_until_ready(
        &mut self,
        limit: Duration,
        cancel: &Cancel,
        mut is_ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let name = self.name;
        cancel.begin(format!("waiting for {name}"))?;
        let mut exited = None;
        let ready = cancel.wait_until(limit, || {
            exited = self
                .child
                .try_wait()
                .with_context(|| format!("cannot wait for {name}"))?;
            Ok(exited.is_some() || is_ready()?)
        })?;
        if let Some(status) = exited {
            bail!("{name} exited ({status}): {}", last_lines(name));
        }
        ensure!(
            ready,
            "{name} was not ready after {} s: {}",
            limit.as_secs(),
            last_lines(name)
        );
        Ok(())
    }

    /// Stops it as systemd would.
    pub(super) fn stop(mut self, cancel: &Cancel) -> Result<()> {
        let name = self.name;
        let id = i32::try_from(self.child.id()).context("the process id is out of range")?;
        kill(Pid::from_raw(id), Signal::SIGTERM).with_context(|| format!("cannot stop {name}"))?;
        let stopped = cancel.wait_until(STOP_LIMIT, || Ok(self.child.try_wait()?.is_some()))?;
        ensure!(stopped, "{name} did not stop");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to completion.
pub(super) fn run(name: &'static str, arguments: &[String]) -> Result<()> {
    let status = command(name, arguments)?
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} failed ({status}): {}", last_lines(name));
    Ok(())
}

fn command(name: &str, arguments: &[String]) -> Result<Command> {
    let path = log_path(name);
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log")?)
        .stderr(log);
    Ok(command)
}

/// The log of a program; empty if it never ran.
pub(super) fn log(name: &str) -> String {
    let bytes = fs::read(log_path(name)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

fn log_path(name: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{name}.log"))
}

fn last_lines(name: &str) -> String {
    let log = log(name);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
