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

use super::{Bench, tracer};

/// Where recordings are written: a small disk that fills up.
const FOLDER: &str = "/recordings";
/// The size of the disk: a few dozen connections.
const SIZE: &str = "size=32k";
/// More connections than fit there, in rounds. Each round's records are flushed to the disk.
const AT_A_TIME: usize = 20;
const TIMES: usize = 8;
/// Records are in the file after this time at the latest.
const SOON: Duration = Duration::from_secs(4);
/// How long tracer may take to write what it has in memory.
const WRITTEN: Duration = Duration::from_secs(10);

impl Bench<'_> {
    /// Records, and ends in every way.
    pub(super) fn records(&self) -> Result<()> {
        fs::create_dir_all(FOLDER).context("cannot create a folder")?;
        mount(Some("tmpfs"), FOLDER, Some("tmpfs"), MsFlags::empty(), Some(SIZE))
            .context("cannot mount a small disk")?;
        let checked = self
            .is_killed()
            .context("killed")
            .and_then(|()| self.ends_by_itself().context("--until and --duration"))
            .and_then(|()| self.writes_from_memory().context("--ring"))
            .and_then(|()| self.fills_the_disk().context("full disk"));
        umount(FOLDER).context("cannot unmount the small disk")?;
        checked?;
        // On the guest's root file system, which has room.
        self.rotates().context("--rotate-size and --rotate-count")?;
        self.shows_progress().context("on a terminal")?;
        fs::remove_dir(FOLDER).context("cannot remove a folder")
    }

    fn is_killed(&self) -> Result<()> {
        let file = path("killed");
        let record = self.record(&["-o", &file])?;
        self.client.visit(self.to)?;
        self.cancel.sleep(SOON)?;
        let (_, words) = record.end(Some(Signal::SIGKILL))?;
        let (flows, complaint) = replayed(&file)?;
        ensure!(flows == 1, "{flows} flows, expected 1: {words} {complaint}");
        ensure!(
            complaint.contains("it was not ended in good order"),
            "the unclean end is not reported: {complaint}"
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
        // Its fate is known by now.
        self.cancel.sleep(Duration::from_secs(1))?;
        let so_far = fs::metadata(&file).context("the file is missing")?.len();
        ensure!(so_far == 0, "{so_far} bytes were written before the signal");
        record.tell(Signal::SIGUSR1)?;
        let there = self.cancel.wait_until(WRITTEN, || Ok(replayed(&first).is_ok()))?;
        ensure!(there, "nothing was written after SIGUSR1");
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
        for _ in 0..TIMES {
            for _ in 0..AT_A_TIME {
                self.client.visit(self.to)?;
            }
            self.cancel.sleep(SOON)?;
        }
        let (status, words) = record.end(None)?;
        ensure!(status.code() == Some(1), "{status}: {words}");
        let last = words.lines().last().unwrap_or_default();
        ensure!(
            last.contains("cannot go on recording") && last.contains("No space left on device"),
            "the reason for its exit is missing: {words}"
        );
        let (flows, complaint) = replayed(&file)?;
        ensure!(
            (AT_A_TIME..AT_A_TIME * TIMES).contains(&flows),
            "{flows} flows are readable: {complaint}"
        );
        ensure!(
            !complaint.contains("not whole"),
            "a partial chunk is left: {complaint}"
        );
        self.port.note(format!("a full disk holds {flows} flows: {last}"));
        remove(&file)
    }

    /// Records until several files are full: the newest are kept, and contain all flows from some number on.
    fn rotates(&self) -> Result<()> {
        const KEPT: usize = 3;
        const FULL: u32 = 4;
        const MOST_VISITS: u64 = 3_000;
        let file = |number: u32| path(&format!("row.{number:04}"));
        let record = self.record(&[
            "-o",
            &path("row"),
            "--rotate-size",
            "64KiB",
            "--rotate-count",
            &KEPT.to_string(),
        ])?;
        let mut visits = 0;
        while !fs::exists(file(FULL + 1)).context("cannot look for a file")? {
            ensure!(
                visits < MOST_VISITS,
                "fewer than {FULL} full files after {visits} connections"
            );
            self.client.visit(self.to)?;
            visits += 1;
        }
        let (status, words) = record.end(Some(Signal::SIGINT))?;
        ensure!(status.success(), "{status}: {words}");
        let mut files = Vec::new();
        for entry in fs::read_dir(FOLDER).context("cannot list the files")? {
            files.push(entry?.path().display().to_string());
        }
        files.sort();
        ensure!(files.len() == KEPT, "expected {KEPT} files: {files:?}");
        ensure!(files[0] > file(1), "the oldest files were not removed: {files:?}");
        let (ids, complaint) = established(&files)?;
        let (Some(&begin), Some(&end)) = (ids.first(), ids.last()) else {
            bail!("no flow in {files:?}: {complaint}");
        };
        ensure!(
            complaint.is_empty() && begin > 1 && end == visits && ids.iter().copied().eq(begin..=end),
            "the kept files contain flows {begin} to {end}, {} in total, of {visits}: {complaint}",
            ids.len()
        );
        files.iter().try_for_each(|file| remove(file))
    }

    /// Progress is one line that is overwritten.
    fn shows_progress(&self) -> Result<()> {
        let file = path("watched");
        let OpenptyResult { master, slave } = openpty(None, None).context("cannot open a pseudo terminal")?;
        let mut child = tracer(&["record", "--port", &self.to.port().to_string(), "-o", &file])
            .stdout(Stdio::null())
            .stderr(slave)
            .spawn()
            .context("cannot run tracer")?;
        let mut terminal = File::from(master);
        let mut said = String::new();
        let mut visited = false;
        // Reading fails once nobody has the terminal open any more.
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = terminal.read(&mut buffer) {
            said.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if !visited && said.contains("recording on ") {
                visited = true;
                self.client.visit(self.to)?;
            }
            if said.contains("1 flow (1 established)") {
                break;
            }
        }
        let pid = i32::try_from(child.id()).context("tracer's process id is out of range")?;
        kill(Pid::from_raw(pid), Signal::SIGINT).context("cannot send tracer a signal")?;
        let status = child.wait().context("cannot wait for tracer")?;
        ensure!(
            status.success() && said.contains("\r\x1b[K00:00:0"),
            "{status}: no progress line: {said:?}"
        );
        whole(&file, 1)?;
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
        // If it never gets ready, the scenario's watchdog kills it, which ends its output.
        while let Some(Ok(line)) = record.errors.next() {
            if line.starts_with("recording on ") {
                return Ok(record);
            }
            said.push(line);
        }
        bail!("tracer did not start recording: {}", said.join("; "))
    }
}

/// A `tracer record` that is ready.
struct Record {
    child: Child,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Record {
    fn tell(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("tracer's process id is out of range")?;
        kill(Pid::from_raw(pid), signal).context("cannot send tracer a signal")
    }

    /// Ends it by a signal, or waits until it exits by itself; returns its status and its last lines on
    /// standard error.
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

/// The number of established flows in a recording, and replay's messages about its state.
fn replayed(file: &str) -> Result<(usize, String)> {
    let (ids, words) = established(&[file.to_owned()])?;
    Ok((ids.len(), words))
}

/// The numbers of the established flows in the recordings of one run, and replay's messages about their
/// state.
fn established(files: &[String]) -> Result<(Vec<u64>, String)> {
    let output = tracer(&["replay", "--json"]).args(files).output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "replay: {}: {words}", output.status);
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
    Ok((established, words))
}

/// Checks that the recording is undamaged and has this many flows.
fn whole(file: &str, flows: usize) -> Result<()> {
    let (found, words) = replayed(file)?;
    ensure!(
        found == flows && words.is_empty(),
        "{file} has {found} flows, expected {flows}: {words}"
    );
    Ok(())
}
