//! Runs one boot, and detects guests that crash or hang.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::kernels::Kernel;
use super::qemu::{Guest, Machine, NextLine, Qemu};
use crate::protocol::Message;

/// How often a silent guest is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long a finished guest may take to power off.
const POWER_OFF: Duration = Duration::from_secs(5);

/// How many of the console's last lines are reported.
const TAIL: usize = 25;

/// Time limits of a boot.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From power-on to [`Message::Ready`].
    pub ready: Duration,
    /// Without any output from the guest, once it is ready.
    pub silence: Duration,
    /// The whole boot.
    pub total: Duration,
}

/// One boot.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The QEMU that runs it.
    pub qemu: &'a Qemu,
    /// The kernel it boots.
    pub kernel: &'a Kernel,
    /// Its size.
    pub machine: Machine,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// The file that receives the console's output.
    pub console: &'a Path,
    /// The terminal that becomes its third serial port.
    pub screen: Option<&'a Path>,
    /// Its time limits.
    pub limits: Limits,
}

/// A guest that did not finish.
#[derive(Debug)]
pub struct Failure {
    /// The reason.
    pub why: String,
    /// Whether the guest was ready before that.
    pub was_ready: bool,
    /// The last lines of its console.
    pub console: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        if !self.console.is_empty() {
            write!(f, "; the console's last lines:\n{}", self.console)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl Boot<'_> {
    /// Boots and passes on each message as it arrives. A guest that dies before it is ready is booted a
    /// second time, because no scenario has started yet.
    pub fn run(&self, mut on_message: impl FnMut(Message)) -> Result<()> {
        match self.boot_once(&mut on_message)? {
            Err(failure) if !failure.was_ready => {
                eprintln!(
                    "    Boot  {} died before it was ready, retrying: {failure}",
                    self.kernel.release
                );
                Ok(self.boot_once(&mut on_message)??)
            }
            outcome => Ok(outcome?),
        }
    }

    fn boot_once(&self, on_message: &mut dyn FnMut(Message)) -> Result<Result<(), Failure>> {
        let mut guest = self.qemu.boot(
            self.kernel,
            self.machine,
            self.initramfs,
            self.console,
            self.screen,
        )?;
        let mut watchdog = Watchdog::new(self.limits);
        loop {
            match guest.next_line(POLL_INTERVAL) {
                NextLine::Line(line) => {
                    watchdog.reset();
                    // A line that does not parse was cut short; its consequences show in what follows.
                    let Some(message) = Message::from_line(&line) else {
                        continue;
                    };
                    watchdog.ready |= matches!(message, Message::Ready { .. });
                    let done = message == Message::Done;
                    on_message(message);
                    if done {
                        guest.finish(POWER_OFF);
                        return Ok(Ok(()));
                    }
                }
                NextLine::TimedOut => {
                    watchdog.console(guest.console_size());
                    if let Some(why) = watchdog.expired() {
                        return Ok(Err(self.failure(&mut guest, watchdog.ready, why)));
                    }
                }
                NextLine::Closed => {
                    let why = "the guest ended before it was done".to_owned();
                    return Ok(Err(self.failure(&mut guest, watchdog.ready, why)));
                }
            }
        }
    }

    fn failure(&self, guest: &mut Guest, was_ready: bool, mut why: String) -> Failure {
        let error_output = guest.error_output();
        if !error_output.is_empty() {
            why = format!("{why} (QEMU: {error_output})");
        }
        let console = fs::read(self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        if let Some(panic) = console.lines().find(|line| line.contains("Kernel panic")) {
            why = format!("{why} ({})", panic.trim());
        }
        Failure {
            why,
            was_ready,
            console: tail(&console),
        }
    }
}

/// Detects a guest that takes too long.
struct Watchdog {
    limits: Limits,
    started: Instant,
    last_output: Instant,
    console: u64,
    ready: bool,
}

impl Watchdog {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            limits,
            started: now,
            last_output: now,
            console: 0,
            ready: false,
        }
    }

    fn reset(&mut self) {
        self.last_output = Instant::now();
    }

    fn console(&mut self, size: u64) {
        if size != self.console {
            self.console = size;
            self.reset();
        }
    }

    fn expired(&self) -> Option<String> {
        let Limits {
            ready,
            silence,
            total,
        } = self.limits;
        let running = self.started.elapsed();
        if !self.ready && running > ready {
            Some(format!("the guest was not ready after {} s", ready.as_secs()))
        } else if self.ready && self.last_output.elapsed() > silence {
            Some(format!("the guest has been silent for {} s", silence.as_secs()))
        } else if running > total {
            Some(format!("the guest was not done after {} s", total.as_secs()))
        } else {
            None
        }
    }
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let from = lines.len().saturating_sub(TAIL);
    lines[from..]
        .iter()
        .map(|line| format!("    | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        ready: Duration::from_mins(1),
        silence: Duration::from_secs(30),
        total: Duration::from_mins(10),
    };

    #[test]
    fn the_watchdog_detects_slow_and_silent_guests() {
        let Some(past) = Instant::now().checked_sub(Duration::from_secs(45)) else {
            return; // a machine that has just been switched on
        };
        let mut watchdog = Watchdog::new(LIMITS);
        watchdog.last_output = past;
        watchdog.started = past;
        assert_eq!(watchdog.expired(), None, "a booting guest may be silent");
        watchdog.ready = true;
        assert!(watchdog.expired().unwrap().contains("silent for 30 s"));
        watchdog.console(10);
        assert_eq!(watchdog.expired(), None, "the console is a sign of life");
        watchdog.limits.total = Duration::from_secs(40);
        assert!(watchdog.expired().unwrap().contains("not done after 40 s"));
        watchdog.ready = false;
        watchdog.limits.ready = Duration::from_secs(44);
        assert!(watchdog.expired().unwrap().contains("not ready after 44 s"));
    }

    #[test]
    fn the_tail_omits_empty_lines() {
        let lines: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
        let text = lines.join("\r\n\r\n");
        let tail = tail(&text);
        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.ends_with("| line 39"));
    }
}
