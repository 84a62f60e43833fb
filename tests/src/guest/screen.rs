//! tracer's screen on the user's terminal, while the scenarios repeat until the user quits.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcdrain, tcsetwinsize};

use super::boot;
use super::port::Port;
use super::supervise;
use crate::protocol::{Job, Message, SCREEN, TRACER_PATH, Terminal};

/// How often a stopped tracer is continued: there is no shell to do that.
const CONTINUE_INTERVAL: Duration = Duration::from_millis(500);

/// How often to check whether tracer has attached its hooks, and the maximum number of checks.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
const MAX_POLLS: usize = 60;

/// Runs the screen. The machine powers off when the user quits.
pub(super) fn show(job: &Job, terminal: &Terminal, port: &Port) -> Result<()> {
    let tracer = start(terminal)?;
    let messages = port.clone();
    thread::spawn(move || {
        if let Err(error) = wait(tracer) {
            messages.send(&Message::ScreenFailed {
                text: format!("{error:#}"),
            });
        }
        // tracer's last output is still on its way to the user.
        if let Ok(screen) = open() {
            let _ = tcdrain(&screen);
        }
        messages.send(&Message::Done);
        messages.drain();
        boot::power_off();
    });
    wait_for_probes();
    let job = Job {
        without_tracer: true,
        ..job.clone()
    };
    loop {
        supervise::run_all(&job, port);
    }
}

fn open() -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
        .open(SCREEN)
        .with_context(|| format!("cannot open {SCREEN}"))
}

fn start(terminal: &Terminal) -> Result<Child> {
    let screen = open()?;
    let size = Winsize {
        ws_row: terminal.lines,
        ws_col: terminal.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&screen, size).with_context(|| format!("cannot set the size of {SCREEN}"))?;
    Command::new(TRACER_PATH)
        .arg("live")
        .envs(terminal.environment.iter().cloned())
        .stdin(open()?)
        .stdout(open()?)
        .stderr(screen)
        // It stops its whole process group when the user suspends it; our own must keep running.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {TRACER_PATH}"))
}

/// Waits until the number of probes no longer grows, so that tracer sees the traffic from the start.
fn wait_for_probes() {
    let mut seen = 0;
    for _ in 0..MAX_POLLS {
        thread::sleep(POLL_INTERVAL);
        let probes = fs::read_to_string("/sys/kernel/debug/kprobes/list").unwrap_or_default();
        let now = probes.lines().count();
        if now > 0 && now == seen {
            return;
        }
        seen = now;
    }
}

fn wait(mut tracer: Child) -> Result<()> {
    let group = i32::try_from(tracer.id()).context("tracer's process id is out of range")?;
    loop {
        let ended: io::Result<_> = tracer.try_wait();
        if let Some(status) = ended.context("cannot wait for tracer")? {
            ensure!(status.success(), "tracer exited with {status}");
            return Ok(());
        }
        thread::sleep(CONTINUE_INTERVAL);
        // It is running, or has just exited.
        let _ = kill(Pid::from_raw(-group), Signal::SIGCONT);
    }
}
