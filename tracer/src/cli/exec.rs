//! `--exec`: runs a command for each flow, with the flow's JSON line on standard input.
//!
//! A tracing process gives up the right to start programs. A second process, started before, keeps it and runs the command.

use std::{
    env,
    io::{self, BufRead as _, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread,
    time::Instant,
};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, poll};

use super::exit::Failure;
use crate::{diagnose::words::count, report::escape::note};

/// The hidden command of the second process.
pub(super) const COMMAND: &str = "run-for-flows";
/// The most commands that start without a pause. After that, one a second.
const BURST: f64 = 10.0;
/// The most flows that wait for the command to finish.
const MOST_WAITING: usize = 16;

/// How long tracer waits for the command at its end, in milliseconds.
const MOST_PATIENCE: u16 = 10_000;

/// Runs the command of `--exec`.
pub(super) struct Exec {
    /// Standard input of the second process, until [`Self::begin`].
    pipe: Option<ChildStdin>,
    /// To the thread that writes there.
    writer: Option<SyncSender<String>>,
    /// Closed when the second process ends.
    ended: ChildStdout,
    /// Commands that may start now, and the moment at which they were counted.
    allowed: f64,
    counted: Instant,
    skipped: u64,
}

impl Exec {
    /// Starts the second process. `is_silent`: the command's output goes to `/dev/null`, not to standard error.
    pub(super) fn start(command: &str, is_silent: bool) -> Result<Self, Failure> {
        let tracer = env::current_exe().context("cannot find the executable for --exec")?;
        let errors = if is_silent {
            Stdio::null()
        } else {
            Stdio::inherit()
        };
        let mut child: Child = Command::new(tracer)
            .args([COMMAND, command])
            // Ctrl-C ends tracing; a command that runs then may finish.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot start the process for --exec")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, ended) = pipes.context("cannot write to the process for --exec")?;
        Ok(Self {
            pipe: Some(to),
            writer: None,
            ended,
            allowed: BURST,
            counted: Instant::now(),
            skipped: 0,
        })
    }

    /// Starts the thread that writes to the second process. The calling thread is confined by now, and so is the new one.
    pub(super) fn begin(&mut self) {
        self.writer = self.pipe.take().map(|to| {
            let (lines, waiting) = sync_channel::<String>(MOST_WAITING);
            thread::spawn(move || write(to, waiting.iter()));
            lines
        });
    }

    /// Runs the command with this line, unless too many have run or are waiting.
    pub(super) fn run(&mut self, line: String) {
        let now = Instant::now();
        let refill = now.duration_since(self.counted).as_secs_f64();
        self.allowed = (self.allowed + refill).min(BURST);
        self.counted = now;
        if self.allowed < 1.0 {
            self.skipped += 1;
            return;
        }
        match self.writer.as_ref().map(|lines| lines.try_send(line)) {
            Some(Ok(())) => self.allowed -= 1.0,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => self.skipped += 1,
        }
    }

    /// Waits a while until the command has run for the flows that wait, and reports the skipped ones.
    pub(super) fn finish(self) {
        let Self {
            pipe,
            writer,
            ended,
            skipped,
            ..
        } = self;
        drop(pipe);
        drop(writer);
        // It writes nothing: the pipe can be read once the second process has closed it.
        let mut pipe = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        if poll(&mut pipe, MOST_PATIENCE) == Ok(0) {
            note("the command of --exec is still running");
        }
        if skipped != 0 {
            note(format_args!(
                "--exec did not run for {}: at most one command a second",
                count(skipped, "flow")
            ));
        }
    }
}

/// Writes the lines until the second process is gone.
fn write(mut to: ChildStdin, lines: impl Iterator<Item = String>) {
    for line in lines {
        if writeln!(to, "{line}").is_err() {
            return;
        }
    }
}

/// The second process: runs the command for each line of standard input, one after the other.
pub(super) fn serve(command: &str) -> Result<(), Failure> {
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read the flows for --exec")?;
        if let Err(error) = run(command, &line) {
            note(format_args!("cannot run `{command}`: {error}"));
        }
    }
    Ok(())
}

fn run(command: &str, line: &str) -> io::Result<()> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        // Standard output of the run holds its own lines.
        .stdout(io::stderr())
        .spawn()?;
    if let Some(mut to) = child.stdin.take() {
        // The command need not read it.
        let _ = writeln!(to, "{line}");
    }
    let status = child.wait()?;
    if !status.success() {
        note(format_args!("`{command}`: {status}"));
    }
    Ok(())
}
