//! `tracer record` as a process: its recordings are readable, however it ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{ProcessChecks, tracer_command};
use crate::tracer_text::{
    CANNOT_RECORD, EVENT_SEEN, NO_FLOW, NO_LANDLOCK, PARTIAL_CHUNK, RECORDING, UNCLEAN_END,
};

/// Where recordings are written: a small disk that fills up.
const FOLDER: &str = "/recordings";
/// The size of the disk: a few dozen connections.
const SIZE: &str = "size=32k";
/// More connections than fit there, in rounds. Each round's records are flushed to the disk.
const CONNECTIONS_PER_ROUND: usize = 20;
const ROUNDS: usize = 8;
/// Records are in the file after this time at the latest.
const FLUSHED: Duration = Duration::from_secs(4);
/// How long tracer may take to write what it has in memory.
const WRITTEN: Duration = Duration::from_secs(10);

impl ProcessChecks<'_> {
    /// Records, and ends in every way.
    pub(super) fn records(&self) -> Result<()> {
        fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
        mount(Some("tmpfs"), FOLDER, Some("tmpfs"), MsFlags::empty(), Some(SIZE))
            .with_context(|| format!("cannot mount a small disk on {FOLDER}"))?;
        let checked = self
            .killed()
            .context("killed")
            .and_then(|()| self.ends_by_itself().context("--until and --duration"))
            .and_then(|()| self.writes_from_memory().context("--ring"))
            .and_then(|()| self.removed_meanwhile().context("removed"))
            .and_then(|()| self.fills_the_disk().context("full disk"));
        umount(FOLDER).with_context(|| format!("cannot unmount {FOLDER}"))?;
        checked?;
        // On the guest's root file system, which has room.
        self.rotates().context("--rotate-size and --rotate-count")?;
        self.shows_progress().context("on a terminal")?;
        fs::remove_dir(FOLDER).with_context(|| format!("cannot remove {FOLDER}"))
    }

    fn killed(&self) -> Result<()> {
        let file = path("killed");
        let record = self.record(&["-o", &file])?;
        self.client.connect_briefly(self.to)?;
        self.cancel.sleep(FLUSHED)?;
        let (_, messages) = record.end(Some(Signal::SIGKILL))?;
        let (flows, message) = replayed(&file)?;
        ensure!(flows == 1, "{flows} flows, expected 1: {messages} {message}");
        ensure!(
            message.contains(UNCLEAN_END),
            "the unclean end is not reported: {message}"
        );
        remove(&file)
    }

    fn ends_by_itself(&self) -> Result<()> {
        let file = path("until");
        let record = self.record(&["-o", &file, "--until", "established", "--after", "1"])?;
        self.client.connect_briefly(self.to)?;
        let (status, messages) = record.end(None)?;
        ensure!(
            status.success() && messages.contains(EVENT_SEEN),
            "{status}: {messages}"
        );
        ensure_undamaged(&file, 1)?;

        let refused = tracer_command(&["record", "-o", &file, "--duration", "1"]).output()?;
        let messages = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            refused.status.code() == Some(1) && messages.contains("--force"),
            "{}: the recording was replaced: {messages}",
            refused.status
        );
        ensure_undamaged(&file, 1)?;
        let again = ["-o", &file, "--duration", "1", "--force"];
        let (status, messages) = self.record(&again)?.end(None)?;
        ensure!(
            status.success() && messages.contains(NO_FLOW),
            "{status}: {messages}"
        );
        ensure_undamaged(&file, 0)?;
        remove(&file)
    }

    fn writes_from_memory(&self) -> Result<()> {
        let (file, first) = (path("ring"), path("ring.0001"));
        let record = self.record(&["-o", &file, "--ring", "1MiB"])?;
        self.client.connect_briefly(self.to)?;
        // Its fate is known by now.
        self.cancel.sleep(Duration::from_secs(1))?;
        let so_far = fs::metadata(&file).context("the file is missing")?.len();
        ensure!(so_far == 0, "{so_far} bytes were written before the signal");
        record.signal(Signal::SIGUSR1)?;
        let there = self.cancel.wait_until(WRITTEN, || Ok(replayed(&first).is_ok()))?;
        ensure!(there, "nothing was written after SIGUSR1");
        ensure_undamaged(&first, 1)?;
        self.client.connect_briefly(self.to)?;
        let (status, messages) = record.end(Some(Signal::SIGINT))?;
        ensure!(status.success(), "{status}: {messages}");
        ensure_undamaged(&file, 2)?;
        remove(&first)?;
        remove(&file)
    }

    fn fills_the_disk(&self) -> Result<()> {
        self.fills_the_disk_from_memory()?;
        let file = path("full");
        let record = self.record(&["-o", &file])?;
        for _ in 0..ROUNDS {
            for _ in 0..CONNECTIONS_PER_ROUND {
                self.client.connect_briefly(self.to)?;
            }
            self.cancel.sleep(FLUSHED)?;
        }
        let (status, messages) = record.end(None)?;
        ensure!(status.code() == Some(1), "{status}: {messages}");
        let last = messages.lines().last().unwrap_or_default();
        ensure!(
            last.contains(CANNOT_RECORD) && last.contains("No space left on device"),
            "the reason for its exit is missing: {messages}"
        );
        let (flows, message) = replayed(&file)?;
        ensure!(
            (CONNECTIONS_PER_ROUND..CONNECTIONS_PER_ROUND * ROUNDS).contains(&flows),
            "{flows} flows are readable: {message}"
        );
        ensure!(
            !message.contains(PARTIAL_CHUNK),
            "a partial chunk is left: {message}"
        );
        self.port.note(format!("a full disk holds {flows} flows: {last}"));
        remove(&file)
    }

    /// A recording that does not fit on the disk leaves no partial file, and the message names the file.
    fn fills_the_disk_from_memory(&self) -> Result<()> {
        let (file, first) = (path("memory"), path("memory.0001"));
        let record = self.record(&["-o", &file, "--ring", "1MiB"])?;
        let filler = path("filler");
        let full = fs::write(&filler, vec![0; 64 << 10]);
        ensure!(full.is_err(), "the disk has room");
        self.client.connect_briefly(self.to)?;
        record.signal(Signal::SIGUSR1)?;
        self.cancel.sleep(Duration::from_secs(1))?;
        ensure!(!fs::exists(&first)?, "{first} is left");
        let (status, messages) = record.end(Some(Signal::SIGINT))?;
        ensure!(
            status.code() == Some(1)
                && [&first, &file]
                    .iter()
                    .all(|file| messages.contains(&format!("{file}: No space left on device"))),
            "{status}: {messages}"
        );
        ensure!(!fs::exists(&file)?, "{file} is left");
        remove(&filler)
    }

    /// Removing the recording during the run is a failure.
    fn removed_meanwhile(&self) -> Result<()> {
        let file = path("removed");
        let record = self.record(&["-o", &file])?;
        remove(&file)?;
        let (status, messages) = record.end(Some(Signal::SIGINT))?;
        ensure!(
            status.code() == Some(1) && messages.contains("the recording was removed while it was written"),
            "{status}: {messages}"
        );
        Ok(())
    }

    /// Records until several files are full: the newest are kept, and contain all flows from some number on.
    fn rotates(&self) -> Result<()> {
        const KEPT: usize = 3;
        const FULL: u32 = 4;
        const MAX_CONNECTIONS: u64 = 3_000;
        let file = |number: u32| path(&format!("rotated.{number:04}"));
        let record = self.record(&[
            "-o",
            &path("rotated"),
            "--rotate-size",
            "64KiB",
            "--rotate-count",
            &KEPT.to_string(),
        ])?;
        let mut connections = 0;
        while !fs::exists(file(FULL + 1)).context("cannot check for a file")? {
            ensure!(
                connections < MAX_CONNECTIONS,
                "fewer than {FULL} full files after {connections} connections"
            );
            self.client.connect_briefly(self.to)?;
            connections += 1;
        }
        let (status, messages) = record.end(Some(Signal::SIGINT))?;
        ensure!(status.success(), "{status}: {messages}");
        let mut files = Vec::new();
        for entry in fs::read_dir(FOLDER).with_context(|| format!("cannot list {FOLDER}"))? {
            files.push(entry?.path().display().to_string());
        }
        files.sort();
        ensure!(files.len() == KEPT, "expected {KEPT} files: {files:?}");
        ensure!(files[0] > file(1), "the oldest files were not removed: {files:?}");
        let (ids, message) = established(&files)?;
        let (Some(&begin), Some(&end)) = (ids.first(), ids.last()) else {
            bail!("no flow in {files:?}: {message}");
        };
        ensure!(
            message.is_empty() && begin > 1 && end == connections && ids.iter().copied().eq(begin..=end),
            "the kept files contain flows {begin} to {end}, {} in total, of {connections}: {message}",
            ids.len()
        );
        files.iter().try_for_each(|file| remove(file))
    }

    /// Progress is one line that is overwritten.
    fn shows_progress(&self) -> Result<()> {
        let file = path("watched");
        let OpenptyResult { master, slave } = openpty(None, None).context("cannot open a pseudo terminal")?;
        let mut child = tracer_command(&["record", "--port", &self.to.port().to_string(), "-o", &file])
            .stdout(Stdio::null())
            .stderr(slave)
            .spawn()
            .context("cannot run tracer")?;
        let mut terminal = File::from(master);
        let mut output = String::new();
        let mut connected = false;
        // Reading fails once no process has the terminal open.
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = terminal.read(&mut buffer) {
            output.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if !connected && output.contains(RECORDING) {
                connected = true;
                self.client.connect_briefly(self.to)?;
            }
            if output.contains("1 flow (1 established)") {
                break;
            }
        }
        let pid = i32::try_from(child.id()).context("tracer's process id is out of range")?;
        kill(Pid::from_raw(pid), Signal::SIGINT).context("cannot send tracer a signal")?;
        let status = child.wait().context("cannot wait for tracer")?;
        ensure!(
            status.success() && output.contains("\r\x1b[K00:00:0"),
            "{status}: no progress line: {output:?}"
        );
        ensure_undamaged(&file, 1)?;
        remove(&file)
    }

    fn record(&self, arguments: &[&str]) -> Result<Record> {
        let mut child = tracer_command(&["record", "--port", &self.to.port().to_string()])
            .args(arguments)
            .spawn()
            .context("cannot run tracer")?;
        let errors = child.stderr.take().context("tracer has no standard error")?;
        let mut record = Record {
            child,
            errors: BufReader::new(errors).lines(),
        };
        let mut output = Vec::new();
        // If it never gets ready, the scenario's watchdog kills it, which ends its output.
        while let Some(Ok(line)) = record.errors.next() {
            if line.starts_with(RECORDING) {
                return Ok(record);
            }
            output.push(line);
        }
        bail!("tracer did not start recording: {}", output.join("; "))
    }
}

/// A `tracer record` that is ready.
struct Record {
    child: Child,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Record {
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("tracer's process id is out of range")?;
        kill(Pid::from_raw(pid), signal).context("cannot send tracer a signal")
    }

    /// Ends it by a signal, or waits until it exits by itself; returns its status and its last lines on
    /// standard error.
    fn end(mut self, signal: Option<Signal>) -> Result<(ExitStatus, String)> {
        if let Some(signal) = signal {
            self.signal(signal)?;
        }
        let messages: Vec<String> = self.errors.by_ref().map_while(Result::ok).collect();
        let status = self.child.wait().context("cannot wait for tracer")?;
        Ok((status, messages.join("\n")))
    }
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}.trace")
}

fn remove(file: &str) -> Result<()> {
    fs::remove_file(file).with_context(|| format!("cannot remove {file}"))
}

/// The number of established flows in a recording, and replay's messages about its state.
fn replayed(file: &str) -> Result<(usize, String)> {
    let (ids, messages) = established(&[file.to_owned()])?;
    Ok((ids.len(), messages))
}

/// The numbers of the established flows in the recordings of one run, and replay's messages about their
/// state.
fn established(files: &[String]) -> Result<(Vec<u64>, String)> {
    let output = tracer_command(&["replay", "--json"]).args(files).output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "replay: {}: {messages}", output.status);
    // A kernel without Landlock is reported each time.
    let messages: String = messages
        .split_inclusive('\n')
        .filter(|line| !line.contains(NO_LANDLOCK))
        .collect();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let flows = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["type"] == "flow");
    let mut established = Vec::new();
    for flow in flows {
        match flow["fate"].as_str() {
            Some("established") => established.extend(flow["id"].as_u64()),
            // The recording ended too soon.
            Some("pending") => {}
            _ => bail!("unexpected flow: {flow}"),
        }
    }
    Ok((established, messages))
}

/// Checks that the recording is undamaged and has this many flows.
fn ensure_undamaged(file: &str, flows: usize) -> Result<()> {
    let (found, messages) = replayed(file)?;
    ensure!(
        found == flows && messages.is_empty(),
        "{file} has {found} flows, expected {flows}: {messages}"
    );
    Ok(())
}
