//! tracer's screen on the user's terminal, over scenarios that are played again and again until the user ends it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use super::boot;
use super::port::Port;
use super::supervise;
use crate::protocol::{Job, Message, SCREEN, TRACER_PATH, Terminal};

/// How often a tracer that has stopped itself is told to go on: there is no shell to do that.
const GO_ON: Duration = Duration::from_millis(500);

/// Shows it. The machine is switched off when the user has seen enough.
pub(super) fn show(job: &Job, terminal: &Terminal, port: &Port) -> Result<()> {
    let tracer = start(terminal)?;
    let farewell = port.clone();
    thread::spawn(move || {
        let seen = wait(tracer);
        if let Err(error) = seen {
            farewell.note(format!("{error:#}"));
        }
        farewell.send(&Message::Done);
        farewell.drain();
        boot::power_off();
    });
    let job = Job {
        without_tracer: true,
        ..job.clone()
    };
    loop {
        supervise::play_all(&job, port);
    }
}

fn start(terminal: &Terminal) -> Result<Child> {
    let open = || -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options
            .open(SCREEN)
            .with_context(|| format!("cannot open {SCREEN}"))
    };
    let screen = open()?;
    let size = Winsize {
        ws_row: terminal.lines,
        ws_col: terminal.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&screen, size).with_context(|| format!("cannot set the size of {SCREEN}"))?;
    Command::new(TRACER_PATH)
        .args(["live", "--tui"])
        .envs(terminal.environment.iter().cloned())
        .stdin(open()?)
        .stdout(open()?)
        .stderr(screen)
        // It stops its whole process group where the user wants a shell, and ours plays on.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {TRACER_PATH}"))
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
