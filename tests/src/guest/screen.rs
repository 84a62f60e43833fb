//! tracer's screen on the user's terminal, over scenarios that are played again and again until the user ends it.

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

/// How often a tracer that has stopped itself is told to go on: there is no shell to do that.
const GO_ON: Duration = Duration::from_millis(500);

/// How often it is looked whether tracer has attached its hooks, and how many times at most.
const LOOK: Duration = Duration::from_secs(1);
const MOST_LOOKS: usize = 60;

/// Shows it. The machine is switched off when the user has seen enough.
pub(super) fn show(job: &Job, terminal: &Terminal, port: &Port) -> Result<()> {
    let tracer = start(terminal)?;
    let farewell = port.clone();
    thread::spawn(move || {
        if let Err(error) = wait(tracer) {
            farewell.send(&Message::Farewell {
                text: format!("{error:#}"),
            });
        }
        // What tracer said at its end is still on its way to the user.
        if let Ok(screen) = open() {
            let _ = tcdrain(&screen);
        }
        farewell.send(&Message::Done);
        farewell.drain();
        boot::power_off();
    });
    wait_for_probes();
    let job = Job {
        without_tracer: true,
        ..job.clone()
    };
    loop {
        supervise::play_all(&job, port);
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
        // It stops its whole process group where the user wants a shell, and ours plays on.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {TRACER_PATH}"))
}

/// Waits until tracer has attached its hooks, as far as that can be seen: what it traces is to be seen from the beginning.
fn wait_for_probes() {
    let mut seen = 0;
    for _ in 0..MOST_LOOKS {
        thread::sleep(LOOK);
        let probes = fs::read_to_string("/sys/kernel/debug/kprobes/list").unwrap_or_default();
        let now = probes.lines().count();
        if now > 0 && now == seen {
            return;
        }
        seen = now;
    }
}

fn wait(mut tracer: Child) -> Result<()> {
    let group = i32::try_from(tracer.id()).context("tracer has a strange process id")?;
    loop {
        let ended: io::Result<_> = tracer.try_wait();
        if let Some(status) = ended.context("cannot look after tracer")? {
            ensure!(status.success(), "tracer ended with {status}");
            return Ok(());
        }
        thread::sleep(GO_ON);
        // It is alive, or has just ended.
        let _ = kill(Pid::from_raw(-group), Signal::SIGCONT);
    }
}
