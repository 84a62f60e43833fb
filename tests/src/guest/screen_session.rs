//! A program of the guest that keeps tracer's screen open for a while, on a terminal that nobody looks at.
//!
//! A step runs it like any other program: `screen-session 60 30080 --max-flows 5000`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::pty::{OpenptyResult, Winsize, openpty};

use super::usage;
use crate::protocol::TRACER_PATH;

/// The size of the terminal.
const SIZE: Winsize = Winsize {
    ws_row: 40,
    ws_col: 140,
    ws_xpixel: 0,
    ws_ypixel: 0,
};
/// How long the screen may take to appear, and to close after `q`.
const LIMIT: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Moves through the views.
const KEYS: [&[u8]; 6] = [b"2", b"\x1b[B", b"3", b"4", b"1", b"\t"];
/// The least bytes of a screen that draws itself.
const MIN_OUTPUT: usize = 2000;

/// `screen-session SECONDS PORTS [OPTION…]`: opens tracer's screen on these ports, goes through its views, and closes it.
/// Prints what tracer needed. Fails if it did not draw, or did not end well.
pub(super) fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let seconds = arguments.next().context("the duration is missing")?;
    let seconds: u64 = seconds
        .parse()
        .with_context(|| format!("`{seconds}` is no number of seconds"))?;
    let ports = arguments.next().context("the ports are missing")?;
    let OpenptyResult { master, slave } = openpty(&SIZE, None).context("cannot open a terminal")?;
    let mut tracer = start(&ports, arguments, slave)?;
    let drawn = follow(master.try_clone().context("cannot copy the terminal")?);
    let mut keyboard = File::from(master);
    wait_for_screen(&mut tracer, &drawn)?;
    let begin = Instant::now();
    let mut keys = KEYS.iter().cycle();
    while begin.elapsed() < Duration::from_secs(seconds) {
        if let Some(status) = tracer.try_wait().context("cannot wait for tracer")? {
            bail!("the screen closed by itself: {status}");
        }
        let key = keys.next().copied().unwrap_or_default();
        keyboard.write_all(key).context("cannot press a key")?;
        thread::sleep(Duration::from_secs(1));
    }
    println!("{}", usage::describe(tracer.id())?);
    keyboard.write_all(b"q").context("cannot press q")?;
    let status = wait(&mut tracer)?;
    drop(keyboard);
    ensure!(status.success(), "the screen ended with {status}");
    println!("{} bytes drawn", drawn.load(Ordering::Relaxed));
    Ok(())
}

/// Waits until tracer has drawn its screen.
fn wait_for_screen(tracer: &mut Child, drawn: &AtomicUsize) -> Result<()> {
    let begin = Instant::now();
    while drawn.load(Ordering::Relaxed) < MIN_OUTPUT {
        let ended = tracer.try_wait().context("cannot wait for tracer")?;
        ensure!(ended.is_none(), "the screen did not open");
        if begin.elapsed() > LIMIT {
            let _ = tracer.kill();
            let _ = tracer.wait();
            bail!("the screen did not open within {} s", LIMIT.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn start(ports: &str, options: impl Iterator<Item = String>, terminal: OwnedFd) -> Result<Child> {
    let copy = || terminal.try_clone().context("cannot copy the terminal");
    Command::new(TRACER_PATH)
        .args(["live", "--port", ports])
        .args(options)
        .env("TERM", "xterm-256color")
        .stdin(copy()?)
        .stdout(copy()?)
        .stderr(terminal)
        .spawn()
        .with_context(|| format!("cannot run {TRACER_PATH}"))
}

/// Reads what is drawn, so that the terminal never fills, and counts its bytes.
fn follow(master: OwnedFd) -> Arc<AtomicUsize> {
    let drawn = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&drawn);
    thread::spawn(move || {
        let mut screen = File::from(master);
        let mut buffer = [0; 4096];
        // Once the other end is closed, reading fails.
        while let Ok(read @ 1..) = screen.read(&mut buffer) {
            count.fetch_add(read, Ordering::Relaxed);
        }
    });
    drawn
}

fn wait(tracer: &mut Child) -> Result<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = tracer.try_wait().context("cannot wait for tracer")? {
            return Ok(status);
        }
        if begin.elapsed() > LIMIT {
            let _ = tracer.kill();
            let _ = tracer.wait();
            bail!("the screen did not close within {} s", LIMIT.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
}
