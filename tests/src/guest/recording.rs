//! What tracer recorded of a scenario, held against what it said meanwhile.

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
/// Where the lines are kept that it said meanwhile.
const SAID: &str = "/tracer.said";
/// So many bytes of a recording go into one message.
const PART: usize = 4096;

/// The lines that tracer says while it records, as they come.
#[derive(Debug)]
pub(super) struct Said(BufWriter<File>);

impl Said {
    /// Of one run.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(BufWriter::new(File::create(SAID)?)))
    }

    /// Takes a line.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.0, "{line}")
    }

    /// There are no more.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Replays the recording and holds each line against what was said while it was made.
pub(super) fn check(scenario: &Scenario, port: &Port) -> Result<()> {
    let begun = Instant::now();
    let replay = Command::new(TRACER_PATH)
        .args(["replay", "--json", PATH])
        .args(of_replay(&scenario.tracer.options))
        .stdin(Stdio::null())
        .output()
        .context("cannot run tracer replay")?;
    let took = begun.elapsed();
    let complaints = String::from_utf8_lossy(&replay.stderr);
    ensure!(
        replay.status.code() == Some(scenario.tracer.status),
        "tracer replay ended with {}: {complaints}",
        replay.status
    );
    let said = fs::read_to_string(SAID).with_context(|| format!("cannot read {SAID}"))?;
    let replayed = String::from_utf8(replay.stdout).context("tracer replay wrote no text")?;
    for (number, (live, replay)) in (1..).zip(said.lines().zip(replayed.lines())) {
        ensure!(
            live == replay,
            "line {number} of the recording, replayed, is not as it was said live\nlive: {live}\nreplay: {replay}"
        );
    }
    let (live, replay) = (said.lines().count(), replayed.lines().count());
    ensure!(
        live == replay,
        "tracer said {live} lines live and {replay} when its recording was replayed"
    );
    let bytes = fs::metadata(PATH)
        .with_context(|| format!("cannot find {PATH}"))?
        .len();
    port.note(format!(
        "the recording of {bytes} bytes says the same {live} lines, replayed within {} ms",
        took.as_millis()
    ));
    Ok(())
}

/// The options that replay has too: how long live was patient, the recording tells.
fn of_replay(options: &[String]) -> Vec<&String> {
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

/// Hands the recording to the host.
pub(super) fn send(port: &Port) -> Result<()> {
    let file = File::open(PATH).with_context(|| format!("cannot open {PATH}"))?;
    let mut part = Vec::with_capacity(PART);
    loop {
        part.clear();
        let more = (&file).take(PART as u64).read_to_end(&mut part);
        if more.with_context(|| format!("cannot read {PATH}"))? == 0 {
            return Ok(());
        }
        let mut hex = String::with_capacity(2 * part.len());
        for byte in &part {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        port.send(&Message::Recording { hex });
    }
}

/// Leaves nothing behind.
pub(super) fn remove() {
    for path in [PATH, SAID] {
        // It may never have been made.
        let _ = fs::remove_file(path);
    }
}
