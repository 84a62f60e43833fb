//! The tracer under test.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::abridge::Abridge;
use super::cancel::Cancel;
use super::flood;
use super::port::Port;
use super::recording::{self, LiveOutput};
use super::usage::Measurements;
use crate::protocol::{Job, Message, TRACER_PATH};
use crate::scenario::{Moment, Scenario};
use crate::tracer_text::{DENIED, HOOK_REFUSED};

/// How long it may take to attach all hooks; under emulation that is many seconds.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// How long it may take to detach them.
const EXIT_LIMIT: Duration = Duration::from_mins(1);

/// How many lines of its standard error are repeated when it fails.
const LAST_ERRORS: usize = 5;

/// A running tracer.
#[derive(Debug)]
pub(super) struct Tracer {
    child: Child,
    /// The exit status it must end with.
    status: i32,
    /// The limit of its peak memory, in MiB.
    memory_mib: Option<u32>,
    port: Port,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Output(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    first: Option<String>,
    fates: HashMap<String, String>,
    /// Lines that are not about a flow.
    others: Vec<String>,
    stderr_lines: Vec<String>,
    /// How many lines were about flows of a flood. They are only counted.
    flood: u64,
    closed: bool,
    /// The file that keeps its live output, if it records as well.
    live_output: Option<LiveOutput>,
}

impl Tracer {
    /// Starts it on the scenario's ports and waits until it reports that its hooks are attached.
    pub(super) fn start(scenario: &Scenario, job: &Job, port: &Port, cancel: &Cancel) -> Result<Self> {
        cancel.begin("waiting for tracer to attach its hooks")?;
        let ports: Vec<String> = scenario.node_ports().iter().map(u16::to_string).collect();
        // The output of long scenarios depends on tracer's speed.
        let records = !job.demo && (!scenario.long || job.recordings);
        let output: &[&str] = if records {
            &["--output", recording::PATH, "--force"]
        } else {
            &[]
        };
        let depth = scenario.tracer.depth.as_deref().or(job.depth.as_deref());
        let mut child = Command::new(TRACER_PATH)
            .arg("live")
            .arg(if job.demo { "--plain" } else { "--json" })
            .args(["--port", &ports.join(",")])
            .args(output)
            .args(&scenario.tracer.options)
            .args(depth.iter().flat_map(|depth| ["--depth", depth]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {TRACER_PATH}"))?;
        let output = Arc::new(Output::default());
        if records {
            output.lock().live_output = Some(LiveOutput::new().context("cannot keep tracer's output")?);
        }
        let out = child.stdout.take().context("tracer has no standard output")?;
        let errors = child.stderr.take().context("tracer has no standard error")?;
        let readers = vec![
            follow(out, {
                let (output, port) = (Arc::clone(&output), port.clone());
                let mut abridge = Abridge::new(scenario, job);
                move |line| output.line(line, &mut abridge, &port)
            }),
            follow(errors, {
                let (output, port) = (Arc::clone(&output), port.clone());
                move |line| output.stderr_line(line, &port)
            }),
        ];
        let mut tracer = Self {
            child,
            status: scenario.tracer.status,
            memory_mib: scenario.tracer.memory_mib,
            port: port.clone(),
            output,
            readers,
        };
        if let Err(error) = tracer.ready(!job.demo, cancel) {
            let _ = tracer.child.kill();
            let _ = tracer.child.wait();
            return Err(error);
        }
        Ok(tracer)
    }

    fn ready(&mut self, json: bool, cancel: &Cancel) -> Result<()> {
        let mut ended = None;
        let ready = cancel.wait_until(READY_LIMIT, || {
            ended = self.child.try_wait().context("cannot wait for tracer")?;
            Ok(ended.is_some() || self.output.first().is_some())
        })?;
        if let Some(status) = ended {
            self.join();
            bail!(
                "tracer exited before it was ready ({status}): {}",
                self.output.last_errors()
            );
        }
        ensure!(
            ready,
            "tracer was not ready after {} s: {}",
            READY_LIMIT.as_secs(),
            self.output.last_errors()
        );
        let first = self.output.first().unwrap_or_default();
        let start = serde_json::from_str::<Value>(&first).is_ok_and(|line| line["type"] == "start");
        ensure!(start || !json, "tracer's first line is not `start`, but: {first}");
        Ok(())
    }

    /// Waits until a line that is not about a flow, or a line on standard error, contains this text.
    pub(super) fn wait_for_output(&self, text: &str, cancel: &Cancel) -> Result<()> {
        let live_output = cancel.wait_until(READY_LIMIT, || {
            let state = self.output.lock();
            let mut lines = state.others.iter().chain(&state.stderr_lines);
            Ok(lines.any(|line| line.contains(text)))
        })?;
        ensure!(
            live_output,
            "tracer did not print `{text}` within {} s: {}",
            READY_LIMIT.as_secs(),
            self.output.last_errors()
        );
        Ok(())
    }

    /// Waits until it has reported the fates of this many flows, or the time limit has passed.
    pub(super) fn wait_for_fates(&self, flows: usize, limit: Duration, cancel: &Cancel) -> Result<()> {
        cancel.wait_until(limit, || {
            let state = self.output.lock();
            let decided = state.fates.values().filter(|fate| *fate != "pending").count();
            Ok(decided >= flows || state.closed)
        })?;
        Ok(())
    }

    /// Measures what it needs, and reports that.
    pub(super) fn measure(&self, measurements: &mut Measurements, moment: Moment) -> Result<()> {
        let text = measurements.measure(self.child.id(), moment)?;
        self.port.note(text);
        Ok(())
    }

    /// Stops it with SIGTERM and waits for its last lines.
    /// It must have counted as many packets as arrived.
    pub(super) fn stop(mut self, arrived: Option<&str>, cancel: &Cancel) -> Result<()> {
        cancel.begin("waiting for tracer to detach its hooks")?;
        let pid =
            Pid::from_raw(i32::try_from(self.child.id()).context("tracer's process id is out of range")?);
        let mut status = self.child.try_wait().context("cannot wait for tracer")?;
        if let Some(status) = status {
            bail!(
                "tracer exited by itself ({status}): {}",
                self.output.last_errors()
            );
        }
        let memory = self.check_memory();
        kill(pid, Signal::SIGTERM).context("cannot send tracer a signal")?;
        let ended = cancel.wait_until(EXIT_LIMIT, || {
            status = self.child.try_wait().context("cannot wait for tracer")?;
            Ok(status.is_some())
        });
        if !matches!(ended, Ok(true)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.join();
        ensure!(
            ended?,
            "tracer did not exit within {} s of SIGTERM",
            EXIT_LIMIT.as_secs()
        );
        self.output.check_programs()?;
        if let Some(arrived) = arrived {
            self.output.check_arrivals(arrived, &self.port)?;
        }
        match status {
            Some(status) if status.code() != Some(self.status) => bail!(
                "tracer exited with {status}, expected {}: {}",
                self.status,
                self.output.last_errors()
            ),
            _ => memory,
        }
    }

    /// Checks, after its exit, that its recording replays to the same lines.
    pub(super) fn check_recording(
        scenario: &Scenario,
        job: &Job,
        port: &Port,
        cancel: &Cancel,
    ) -> Result<()> {
        if job.demo || scenario.long && !job.recordings {
            return Ok(());
        }
        cancel.begin("replaying what tracer recorded")?;
        let checked = recording::check(scenario, port);
        let sent = if job.recordings {
            recording::send(recording::PATH, port)
        } else {
            Ok(())
        };
        recording::remove();
        checked.and(sent)
    }

    /// Reports its peak memory so far and checks it against the limit, if there is one.
    fn check_memory(&self) -> Result<()> {
        let Some(limit) = self.memory_mib else {
            return Ok(());
        };
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.split_whitespace().next()?.parse::<u32>().ok());
        let mib = peak
            .with_context(|| format!("{path} has no VmHWM"))?
            .div_ceil(1024);
        self.port.note(format!("tracer's peak memory was {mib} MiB"));
        ensure!(
            mib <= limit,
            "tracer's peak memory was {mib} MiB, the limit is {limit}"
        );
        Ok(())
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Option<String> {
        self.lock().first.clone()
    }

    fn last_errors(&self) -> String {
        let state = self.lock();
        let from = state.stderr_lines.len().saturating_sub(LAST_ERRORS);
        match &state.stderr_lines[from..] {
            [] => "no error message".to_owned(),
            lines => lines.join("; "),
        }
    }

    /// Handles a line of its standard output; `None` is the end.
    fn line(&self, line: Option<String>, abridge: &mut Abridge, port: &Port) {
        let Some(line) = line else {
            let mut state = self.lock();
            state.closed = true;
            if let Some(live_output) = &mut state.live_output {
                // A missing end shows in the comparison.
                let _ = live_output.end();
            }
            return;
        };
        let mut sent = line.clone();
        let mut fate = None;
        if let Ok(mut value) = serde_json::from_str::<Value>(&line)
            && value["type"] == "flow"
        {
            if is_of_flood(&value) {
                self.lock().flood += 1;
                return;
            }
            fate = value["fate"]
                .as_str()
                .map(|fate| (value["id"].to_string(), fate.to_owned()));
            abridge.flow(&mut value);
            sent = value.to_string();
        }
        port.send(&Message::Tracer { line: sent });
        let mut state = self.lock();
        if let Some(live_output) = &mut state.live_output {
            let _ = live_output.line(&line);
        }
        if fate.is_none() {
            state.others.push(line.clone());
        }
        state.fates.extend(fate);
        state.first.get_or_insert(line);
    }

    /// Checks that it recorded each packet that arrived or counted it as lost, and that some were lost.
    fn check_arrivals(&self, arrived: &str, port: &Port) -> Result<()> {
        let state = self.lock();
        let end = state
            .others
            .iter()
            .rev()
            .find_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["type"] == "end")
            .context("tracer's last line is not `end`")?;
        let at_receive = |member: &str| end[member]["netif_receive_skb"].as_u64().unwrap_or(0);
        let received = end["received"].as_u64().context("`end` has no `received`")?;
        let (lost, missed) = (at_receive("lost_by_hook"), at_receive("missed"));
        port.note(format!(
            "{arrived} packets arrived: {received} recorded, {lost} lost, {missed} missed; {} flows of the flood were reported; \
             refused: {}, evicted: {}",
            state.flood, end["refused"], end["evicted"]
        ));
        let arrived: u64 = arrived
            .trim()
            .parse()
            .with_context(|| format!("`{arrived}` is not a number"))?;
        ensure!(
            received + lost + missed == arrived,
            "{arrived} packets arrived, but tracer counted {received} + {lost} + {missed}"
        );
        ensure!(lost > 0, "tracer lost nothing: the scenario proves nothing");
        Ok(())
    }

    /// Checks that the kernel accepted every program that tracer loaded, and that the sandbox denied nothing.
    fn check_programs(&self) -> Result<()> {
        let state = self.lock();
        let is_refusal = |line: &&String| [HOOK_REFUSED, DENIED].iter().any(|text| line.contains(text));
        let refused = state.stderr_lines.iter().find(is_refusal);
        refused.map_or(Ok(()), |line| Err(anyhow!("{line}")))
    }

    fn stderr_line(&self, line: Option<String>, port: &Port) {
        if let Some(line) = line {
            port.send(&Message::Stderr { line: line.clone() });
            self.lock().stderr_lines.push(line);
        }
    }
}

/// Whether a flow's line is about one of a flood.
fn is_of_flood(flow: &Value) -> bool {
    let client = flow["client"]["ip"].as_str().and_then(|ip| ip.parse().ok());
    client.is_some_and(flood::is_source)
}

/// Passes on each line, and `None` at the end.
fn follow(
    stream: impl Read + Send + 'static,
    mut handle: impl FnMut(Option<String>) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line);
            handle(Some(text.trim_end_matches(['\n', '\r']).to_owned()));
            line.clear();
        }
        handle(None);
    })
}
