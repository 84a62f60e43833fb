//! The program beside which traffic is measured: tracer or pwru.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::protocol::{Beside, PWRU_DIR, TRACER_PATH};

const OUT: &str = "/tmp/bench.out";
const ERRORS: &str = "/tmp/bench.err";
/// The file of `tracer record`.
pub(super) const RECORDING: &str = "/tmp/bench.trace";

/// How long it may take to get ready or to end, in the guest's time.
const LIMIT: Duration = Duration::from_mins(10);

/// How often a condition is polled: rarely enough to cost nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long the process is observed to find out what it needs without traffic.
const IDLE: Duration = Duration::from_secs(2);

/// How often its CPU time is read while it catches up with its records.
const CATCH_UP: Duration = Duration::from_millis(200);

/// A process that needs less above idle than this, in nanoseconds per [`CATCH_UP`], has caught up.
const CAUGHT_UP: f64 = 400_000.0;

/// The running program.
pub(super) struct Watcher {
    child: Child,
    pub(super) beside: Beside,
    /// From its start until it was ready, in nanoseconds.
    pub(super) ready: f64,
    /// Its CPU time without traffic, in nanoseconds per nanosecond.
    pub(super) idle: f64,
}

impl Watcher {
    /// Starts it, waits until it has attached its programs, and measures what it needs without traffic.
    pub(super) fn start(beside: Beside) -> Result<Self> {
        let mut command = match beside {
            Beside::Light | Beside::Live => {
                let depth = if beside == Beside::Light { "light" } else { "full" };
                let mut command = Command::new(TRACER_PATH);
                command.args(["live", "--json", "--depth", depth]);
                command
            }
            Beside::Record => {
                let mut command = Command::new(TRACER_PATH);
                command.args(["record", "--force", "--depth", "full", "--output", RECORDING]);
                command
            }
            Beside::Pwru => {
                let mut command = Command::new(format!("{PWRU_DIR}/ld-linux-x86-64.so.2"));
                command
                    .args(["--library-path", PWRU_DIR])
                    .arg(format!("{PWRU_DIR}/pwru"))
                    .args(["--output-file", "/dev/null", "tcp and port 30080"]);
                command
            }
            Beside::Nothing | Beside::LightKernel | Beside::Kernel => bail!("{beside:?} is not a program"),
        };
        let create = |path: &str| File::create(path).with_context(|| format!("cannot create {path}"));
        let begun = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(create(OUT)?)
            .stderr(create(ERRORS)?)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let mut watcher = Self {
            child,
            beside,
            ready: 0.0,
            idle: 0.0,
        };
        while !watcher.is_ready() {
            if let Some(status) = watcher.child.try_wait().context("cannot wait for it")? {
                bail!("it exited before it was ready ({status}): {}", errors());
            }
            ensure!(begun.elapsed() < LIMIT, "it is not ready: {}", errors());
            thread::sleep(POLL_INTERVAL);
        }
        watcher.ready = nanoseconds(begun.elapsed());
        // What it does right after its start is not idle.
        thread::sleep(IDLE);
        let (before, from) = (watcher.cpu()?, Instant::now());
        thread::sleep(IDLE);
        watcher.idle = (watcher.cpu()? - before) / nanoseconds(from.elapsed());
        Ok(watcher)
    }

    fn is_ready(&self) -> bool {
        match self.beside {
            Beside::Light | Beside::Live => fs::metadata(OUT).is_ok_and(|metadata| metadata.len() > 0),
            Beside::Record => errors().contains("recording on "),
            _ => errors().contains("Listening for events"),
        }
    }

    /// The CPU time of all its threads so far, in nanoseconds.
    fn cpu(&self) -> Result<f64> {
        let folder = format!("/proc/{}/task", self.child.id());
        let mut sum = 0.0;
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
            // A thread may end at any time.
            let Ok(text) = fs::read_to_string(entry?.path().join("schedstat")) else {
                continue;
            };
            let first = text.split_whitespace().next().unwrap_or_default();
            sum += first.parse::<f64>().context("cannot parse schedstat")?;
        }
        Ok(sum)
    }

    /// Waits until it has handled all records. Returns the CPU time it needed for that, in nanoseconds.
    pub(super) fn catch_up(&self) -> Result<f64> {
        let mut sum = 0.0;
        let (mut before, mut from) = (self.cpu()?, Instant::now());
        loop {
            thread::sleep(CATCH_UP);
            let (now, until) = (self.cpu()?, Instant::now());
            let more = now - before - self.idle * nanoseconds(until.duration_since(from));
            sum += more;
            if more < CAUGHT_UP {
                return Ok(sum.max(0.0));
            }
            (before, from) = (now, until);
        }
    }

    /// Stops the process; its programs in the kernel stay.
    pub(super) fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Continues it.
    pub(super) fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("its process id is out of range")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal}"))
    }

    /// Ends it and returns how long that took, in nanoseconds.
    pub(super) fn stop(mut self) -> Result<f64> {
        let begun = Instant::now();
        self.signal(Signal::SIGINT)?;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                let interrupted = status.signal() == Some(Signal::SIGINT as i32);
                ensure!(
                    status.success() || interrupted || self.beside == Beside::Pwru,
                    "it failed ({status}): {}",
                    errors()
                );
                return Ok(nanoseconds(begun.elapsed()));
            }
            ensure!(begun.elapsed() < LIMIT, "it does not end: {}", errors());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The last line that it printed: its totals.
    pub(super) fn last_line(beside: Beside) -> String {
        let text = match beside {
            Beside::Light | Beside::Live => fs::read_to_string(OUT).unwrap_or_default(),
            _ => errors(),
        };
        text.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn errors() -> String {
    fs::read_to_string(ERRORS).unwrap_or_default()
}

/// A duration in nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}
