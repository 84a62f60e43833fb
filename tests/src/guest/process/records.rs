//! `tracer record` as a process: however it ends, what was recorded before can be read.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Bench, tracer};

/// Where recordings are made, on a disk that is soon full.
const FOLDER: &str = "/recordings";
/// Its size: that of a few dozen connections.
const SIZE: &str = "size=32k";
/// More connections than fit there.
const MANY: usize = 120;
/// What is recorded is in the file after this time, at the latest.
const SOON: Duration = Duration::from_secs(4);
/// How long tracer may take to write what it has in memory.
const WRITTEN: Duration = Duration::from_secs(10);

impl Bench<'_> {
    /// Records and ends in every way.
    pub(super) fn records(&self) -> Result<()> {
        fs::create_dir_all(FOLDER).context("cannot make a folder")?;
        mount(Some("tmpfs"), FOLDER, Some("tmpfs"), MsFlags::empty(), Some(SIZE))
            .context("cannot mount a small disk")?;
        let checked = self
            .is_killed()
            .context("killed")
            .and_then(|()| self.ends_by_itself().context("--until and --duration"))
            .and_then(|()| self.writes_from_memory().context("--ring"))
            .and_then(|()| self.fills_the_disk().context("full disk"));
        umount(FOLDER).context("cannot unmount the small disk")?;
        fs::remove_dir(FOLDER).context("cannot remove a folder")?;
        checked
    }

    fn is_killed(&self) -> Result<()> {
        let file = path("killed");
        let record = self.record(&["-o", &file])?;
        self.client.visit(self.to)?;
        self.cancel.sleep(SOON)?;
        let (_, words) = record.end(Some(Signal::SIGKILL))?;
        let (flows, complaint) = replayed(&file)?;
        ensure!(flows == 1, "{flows} flows instead of 1: {words} {complaint}");
        ensure!(
            complaint.contains("it was not ended in good order"),
            "nothing is said of the end: {complaint}"
        );
        remove(&file)
    }

    fn ends_by_itself(&self) -> Result<()> {
        let file = path("until");
        let record = self.record(&["-o", &file, "--until", "established", "--after", "1"])?;
        self.client.visit(self.to)?;
        let (status, words) = record.end(None)?;
        ensure!(status.success() && words.contains("seen: "), "{status}: {words}");
        whole(&file, 1)?;

        let (status, words) = self.record(&["-o", &file, "--duration", "1"])?.end(None)?;
        ensure!(status.success() && words.contains("no flow"), "{status}: {words}");
        whole(&file, 0)?;
        remove(&file)
    }

    fn writes_from_memory(&self) -> Result<()> {
        let (file, first) = (path("ring"), path("ring.0001"));
        let record = self.record(&["-o", &file, "--ring", "1MiB"])?;
        self.client.visit(self.to)?;
        // Its fate is known.
        self.cancel.sleep(Duration::from_secs(1))?;
        let so_far = fs::metadata(&file).context("the file is not there")?.len();
        ensure!(so_far == 0, "{so_far} bytes were written at once");
        record.tell(Signal::SIGUSR1)?;
        let there = self.cancel.wait_until(WRITTEN, || Ok(replayed(&first).is_ok()))?;
        ensure!(there, "SIGUSR1 made it write nothing");
        whole(&first, 1)?;
        self.client.visit(self.to)?;
        let (status, words) = record.end(Some(Signal::SIGINT))?;
        ensure!(status.success(), "{status}: {words}");
        whole(&file, 2)?;
        remove(&first)?;
        remove(&file)
    }

    fn fills_the_disk(&self) -> Result<()> {
        let file = path("full");
        let record = self.record(&["-o", &file])?;
        for _ in 0..MANY {
            self.client.visit(self.to)?;
        }
        let (status, words) = record.end(None)?;
        ensure!(status.code() == Some(1), "{status}: {words}");
        let last = words.lines().last().unwrap_or_default();
        ensure!(
            last.contains("cannot go on recording") && last.contains("No space left on device"),
            "it does not say why it ended: {words}"
        );
        let (flows, complaint) = replayed(&file)?;
        ensure!(
            flows > 0 && flows <= MANY,
            "{flows} flows can be read: {complaint}"
        );
        ensure!(
            !complaint.contains("not whole"),
            "half a chunk is left: {complaint}"
        );
        self.port
            .note(format!("a full disk holds {flows} flows of {MANY}: {last}"));
        remove(&file)
    }

    fn record(&self, arguments: &[&str]) -> Result<Record> {
        let mut child = tracer(&["record", "--port", &self.to.port().to_string()])
            .args(arguments)
            .spawn()
            .context("cannot run tracer")?;
        let errors = child.stderr.take().context("tracer has no standard error")?;
        let mut record = Record {
            child,
            errors: BufReader::new(errors).lines(),
        };
        let mut said = Vec::new();
        // If it never is ready, the watchdog of the scenario kills it, and that is the end of its words.
        while let Some(Ok(line)) = record.errors.next() {
            if line.starts_with("recording on ") {
                return Ok(record);
            }
            said.push(line);
        }
        bail!("it did not begin to record: {}", said.join("; "))
    }
}

/// A `tracer record` that is ready.
struct Record {
    child: Child,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Record {
    fn tell(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("tracer has a strange process id")?;
        kill(Pid::from_raw(pid), signal).context("cannot send tracer a signal")
    }

    /// Ends it, or waits until it ends by itself; also gives its last words.
    fn end(mut self, signal: Option<Signal>) -> Result<(ExitStatus, String)> {
        if let Some(signal) = signal {
            self.tell(signal)?;
        }
        let words: Vec<String> = self.errors.by_ref().map_while(Result::ok).collect();
        let status = self.child.wait().context("cannot wait for tracer")?;
        Ok((status, words.join("\n")))
    }
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}.trace")
}

fn remove(file: &str) -> Result<()> {
    fs::remove_file(file).with_context(|| format!("cannot remove {file}"))
}

/// How many established flows a recording tells of, and what is said of its state.
fn replayed(file: &str) -> Result<(usize, String)> {
    let output = tracer(&["replay", "--json", file]).output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "replay: {}: {words}", output.status);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let established = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["type"] == "flow" && line["fate"] == "established");
    Ok((established.count(), words))
}

/// Is the recording whole, and has so many flows?
fn whole(file: &str, flows: usize) -> Result<()> {
    let (found, words) = replayed(file)?;
    ensure!(
        found == flows && words.is_empty(),
        "{file} holds {found} flows instead of {flows}: {words}"
    );
    Ok(())
}
