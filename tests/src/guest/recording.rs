//! Compares tracer's recording of a scenario with its live output.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::port::Port;
use crate::protocol::{Message, TRACER_PATH};
use crate::scenario::Scenario;

/// Where tracer records to.
pub(super) const PATH: &str = "/tracer.trace";
/// Where tracer's live lines are kept.
const LIVE_OUTPUT: &str = "/tracer.printed";
/// How many bytes of a recording go into one message.
const PART: usize = 4096;

/// Keeps the lines that tracer prints while it records.
#[derive(Debug)]
pub(super) struct LiveOutput(BufWriter<File>);

impl LiveOutput {
    /// Starts the file for one run.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(BufWriter::new(File::create(LIVE_OUTPUT)?)))
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.0, "{line}")
    }

    /// Flushes the file after the last line.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Replays the recording and compares each line with the live output.
pub(super) fn check(scenario: &Scenario, port: &Port) -> Result<()> {
    let start = Instant::now();
    let replay = Command::new(TRACER_PATH)
        .args(["replay", "--json", PATH])
        .args(replay_options(&scenario.tracer.options))
        .stdin(Stdio::null())
        .output()
        .context("cannot run tracer replay")?;
    let took = start.elapsed();
    let stderr = String::from_utf8_lossy(&replay.stderr);
    ensure!(
        replay.status.code() == Some(scenario.tracer.status),
        "tracer replay ended with {}: {stderr}",
        replay.status
    );
    let printed = fs::read_to_string(LIVE_OUTPUT).with_context(|| format!("cannot read {LIVE_OUTPUT}"))?;
    let replayed = String::from_utf8(replay.stdout).context("tracer replay printed invalid UTF-8")?;
    for (number, (live, replay)) in (1..).zip(printed.lines().zip(replayed.lines())) {
        ensure!(
            live == replay,
            "line {number} differs between live and replay\nlive: {live}\nreplay: {replay}"
        );
    }
    let (live, replay) = (printed.lines().count(), replayed.lines().count());
    ensure!(
        live == replay,
        "tracer printed {live} lines live and {replay} in replay"
    );
    let bytes = fs::metadata(PATH)
        .with_context(|| format!("cannot find {PATH}"))?
        .len();
    port.note(format!(
        "the recording ({bytes} bytes) replays to the same {live} lines in {} ms",
        took.as_millis()
    ));
    Ok(())
}

/// The options that replay accepts too: live's patience is part of the recording.
fn replay_options(options: &[String]) -> Vec<&String> {
    let mut out = Vec::new();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == "--patience" {
            options.next();
        } else {
            out.push(option);
        }
    }
    out
}

/// Sends a recording to the host.
pub(super) fn send(path: &str, port: &Port) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    let mut part = Vec::with_capacity(PART);
    loop {
        part.clear();
        let more = (&file).take(PART as u64).read_to_end(&mut part);
        if more.with_context(|| format!("cannot read {path}"))? == 0 {
            return Ok(());
        }
        let mut hex = String::with_capacity(2 * part.len());
        for byte in &part {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        port.send(&Message::Recording { hex });
    }
}

/// Removes the files.
pub(super) fn remove() {
    for path in [PATH, LIVE_OUTPUT] {
        // They may never have been created.
        let _ = fs::remove_file(path);
    }
}
