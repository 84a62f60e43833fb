//! `tracer record` as a process: however it ends, what was recorded before can be read.

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

/// Where recordings are made, on a disk that is soon full.
const FOLDER: &str = "/recordings";
/// Its size: that of a few dozen connections.
const SIZE: &str = "size=32k";
/// More connections than fit there: so many at a time, and so often. Each time, what was recorded goes to the disk.
const AT_A_TIME: usize = 20;
const TIMES: usize = 8;
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
        checked?;
        // On the guest's own, which has room.
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
            "it does not say why it ended: {words}"
        );
        let (flows, complaint) = replayed(&file)?;
        ensure!(
            (AT_A_TIME..AT_A_TIME * TIMES).contains(&flows),
            "{flows} flows can be read: {complaint}"
        );
        ensure!(
            !complaint.contains("not whole"),
            "half a chunk is left: {complaint}"
        );
        self.port.note(format!("a full disk holds {flows} flows: {last}"));
        remove(&file)
    }

    /// Records until several files are full: the newest are kept, and tell of all flows from some one on.
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
                "after {visits} connections there are no {FULL} full files"
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
        ensure!(files.len() == KEPT, "{KEPT} files were to be kept: {files:?}");
        ensure!(files[0] > file(1), "the oldest were to be taken away: {files:?}");
        let (ids, complaint) = established(&files)?;
        let (Some(&begin), Some(&end)) = (ids.first(), ids.last()) else {
            bail!("no flow is in {files:?}: {complaint}");
        };
        ensure!(
            complaint.is_empty() && begin > 1 && end == visits && ids.iter().copied().eq(begin..=end),
            "the files that were kept tell of the flows {begin} to {end}, {} in all, of {visits}: {complaint}",
            ids.len()
        );
        files.iter().try_for_each(|file| remove(file))
    }

    /// How it goes stands in one line that is written over.
    fn shows_progress(&self) -> Result<()> {
        let file = path("watched");
        let OpenptyResult { master, slave } = openpty(None, None).context("cannot make a terminal")?;
        let mut child = tracer(&["record", "--port", &self.to.port().to_string(), "-o", &file])
            .stdout(Stdio::null())
            .stderr(slave)
            .spawn()
            .context("cannot run tracer")?;
        let mut terminal = File::from(master);
        let mut said = String::new();
        let mut visited = false;
        // Once nobody has it open any more, a terminal cannot be read.
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
        let pid = i32::try_from(child.id()).context("tracer has a strange process id")?;
        kill(Pid::from_raw(pid), Signal::SIGINT).context("cannot send tracer a signal")?;
        let status = child.wait().context("cannot wait for tracer")?;
        ensure!(
            status.success() && said.contains("\r\x1b[K00:00:0"),
            "{status}: no line tells how it goes: {said:?}"
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
    let (ids, words) = established(&[file.to_owned()])?;
    Ok((ids.len(), words))
}

/// The numbers of the established flows that recordings of one run tell of, and what is said of their state.
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
            _ => bail!("it went otherwise than planned: {flow}"),
        }
    }
    Ok((established, words))
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
