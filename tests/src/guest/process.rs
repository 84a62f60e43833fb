//! tracer as a process: when it is ready, how it ends, what it asks for, and that it leaves nothing in the kernel.

mod records;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

use super::cancel::Cancel;
use super::client::Client;
use super::port::Port;
use super::sysctl::Changed;
use crate::protocol::TRACER_PATH;
use crate::scenario::Check;

/// How long the kernel may take to free what a process that is gone had attached.
const FREED: Duration = Duration::from_secs(20);

/// The exit status of a tracer that lacks a privilege.
const NO_PRIVILEGE: i32 = 77;

/// A user with no capability at all.
const NOBODY: u32 = 65_534;

/// How the names of BPF programs begin among the kernel's symbols.
const PROGRAM: &str = "bpf_prog_";

/// What stands for `CAP_SYS_ADMIN` since Linux 5.8.
const FOR_TRACING: [CapabilitySet; 3] = [CapabilitySet::BPF, CapabilitySet::PERFMON, CapabilitySet::SYSLOG];

/// Where checks are made: on a node that is built, with no tracer on it yet.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// Someone who can connect.
    pub(super) client: &'a Client,
    /// Where to.
    pub(super) to: SocketAddr,
    pub(super) port: &'a Port,
    pub(super) cancel: &'a Cancel,
}

impl Bench<'_> {
    /// Makes a check.
    pub(super) fn check(&self, check: Check) -> Result<()> {
        self.cancel.doing(format!("checking {check:?}"))?;
        let checked = match check {
            Check::Hooks => self.hooks(),
            Check::Ends => self.ends(),
            Check::Privileges => privileges(),
            Check::Records => self.records(),
        };
        checked.with_context(|| format!("check {check:?}"))
    }

    fn hooks(&self) -> Result<()> {
        let (table, listed) = (
            tracer(&["hooks"]).output()?,
            tracer(&["hooks", "--json"]).output()?,
        );
        ensure!(
            table.status.success() && listed.status.success(),
            "tracer hooks failed"
        );
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        self.port.note(format!("tracer hooks\n{}", table.trim_end()));
        let listed: Value = serde_json::from_slice(&listed.stdout).context("tracer hooks --json")?;

        let live = Live::start(self)?;
        let attached = live.hooks.clone();
        live.end(Some(Signal::SIGTERM))?;
        ensure!(
            listed.as_array() == Some(&attached),
            "tracer hooks says {listed}, but tracer live {attached:?}"
        );
        ensure!(
            table.lines().count() == attached.len(),
            "not one line a hook:\n{table}"
        );
        for (line, hook) in table.lines().zip(&attached) {
            let mut words = line.split_whitespace();
            ensure!(
                words.next() == hook["state"].as_str() && words.next() == hook["name"].as_str(),
                "this line is not about {hook}: {line}"
            );
            ensure!(words.count() > 1, "no reason is given: {line}");
            ensure!(
                (hook["state"] == "attached") == hook["why"].is_null(),
                "state and reason do not fit together: {hook}"
            );
        }
        Ok(())
    }

    fn ends(&self) -> Result<()> {
        let before = attached()?;
        let mut words = String::new();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
            let ended = Live::start(self)?.end(Some(signal))?;
            if signal == Signal::SIGKILL {
                ensure!(
                    ended.status.signal() == Some(signal as i32),
                    "{signal}: {}",
                    ended.status
                );
            } else {
                ended.in_order().with_context(|| signal.to_string())?;
                ensure!(
                    ended.last.as_deref().is_some_and(|line| kind(line) == "end"),
                    "{signal}: the last line is no `end`, but {:?}",
                    ended.last
                );
                words = ended.complaints;
            }
            self.wait_until_gone(&before)
                .with_context(|| signal.to_string())?;
        }

        let mut live = Live::start(self)?;
        live.out = None;
        self.client.visit(self.to)?;
        let ended = live.end(None)?;
        ended.in_order().context("closed pipe")?;
        // What a hook that is off makes it say at the start is said in any case.
        ensure!(
            ended.complaints == words,
            "a closed pipe is no quiet end: {}",
            ended.complaints
        );
        self.wait_until_gone(&before).context("closed pipe")
    }

    fn wait_until_gone(&self, before: &[String]) -> Result<()> {
        let mut now = Vec::new();
        let gone = self.cancel.wait_until(FREED, || {
            now = attached()?;
            Ok(now == before)
        })?;
        now.retain(|one| !before.contains(one));
        ensure!(gone, "still in the kernel: {}", now.join("; "));
        Ok(())
    }
}

fn privileges() -> Result<()> {
    for arguments in [&["hooks"][..], &["live", "--json"]] {
        let nobody = tracer(arguments).uid(NOBODY).gid(NOBODY).output()?;
        refused(&nobody, "CAP_BPF").with_context(|| format!("an ordinary user, {arguments:?}"))?;
    }
    let some = [CapabilitySet::SYS_ADMIN, CapabilitySet::PERFMON];
    refused(&without(&some, tracer(&["hooks"]))?, "CAP_PERFMON").context("without CAP_PERFMON")?;

    works(&without(&FOR_TRACING, tracer(&["hooks"]))?).context("with CAP_SYS_ADMIN alone")?;
    // Debian's own level 3 asks for CAP_SYS_ADMIN; 2 is the kernel's default.
    let mut paranoia = Changed::default();
    paranoia.set("kernel.perf_event_paranoid", 2)?;
    let output = without(&[CapabilitySet::SYS_ADMIN], tracer(&["hooks"]));
    paranoia.restore()?;
    works(&output?).context("without CAP_SYS_ADMIN")
}

/// A `tracer live --json` that is ready.
#[derive(Debug)]
struct Live {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    hooks: Vec<Value>,
}

/// How it ended.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    last: Option<String>,
    complaints: String,
}

impl Live {
    /// Starts it and waits for its first line. When that comes, every probe that it tells of is in the kernel.
    fn start(bench: &Bench<'_>) -> Result<Self> {
        let began = Instant::now();
        let mut child = tracer(&["live", "--json", "--port", &bench.to.port().to_string()])
            .spawn()
            .context("cannot run tracer")?;
        let mut out = BufReader::new(child.stdout.take().context("tracer has no standard output")?);
        let mut line = String::new();
        // If none ever comes, the watchdog of the scenario kills tracer, and that is the end of its output.
        out.read_line(&mut line).context("cannot listen to tracer")?;
        let took = began.elapsed();
        let probes = attached()?;
        bench
            .port
            .note(format!("tracer was ready after {} ms", took.as_millis()));

        let start: Value = serde_json::from_str(&line).unwrap_or_default();
        let hooks = start["hooks"].as_array().cloned().unwrap_or_default();
        let live = Self {
            child,
            out: Some(out),
            hooks,
        };
        if let Err(error) = ready(&start, &live.hooks, &probes) {
            let ended = live.end(Some(Signal::SIGKILL))?;
            return Err(error.context(format!("{line}{}", ended.complaints)));
        }
        Ok(live)
    }

    /// Ends it, or waits until it ends by itself.
    fn end(mut self, signal: Option<Signal>) -> Result<Ended> {
        if let Some(signal) = signal {
            let pid = i32::try_from(self.child.id()).context("tracer has a strange process id")?;
            kill(Pid::from_raw(pid), signal).context("cannot send tracer a signal")?;
        }
        let lines = self.out.map(|out| out.lines().map_while(Result::ok));
        let last = lines.and_then(Iterator::last);
        let mut complaints = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr
                .read_to_string(&mut complaints)
                .context("cannot read tracer's complaints")?;
        }
        Ok(Ended {
            status: self.child.wait().context("cannot wait for tracer")?,
            last,
            complaints,
        })
    }
}

impl Ended {
    fn in_order(&self) -> Result<()> {
        ensure!(
            self.status.success(),
            "tracer ended with {}: {}",
            self.status,
            self.complaints
        );
        Ok(())
    }
}

/// Whether a first line is a `start`, and all that it calls attached is.
fn ready(start: &Value, hooks: &[Value], probes: &[String]) -> Result<()> {
    ensure!(start["type"] == "start", "tracer's first line is no `start`");
    let mut some = false;
    for hook in hooks.iter().filter(|hook| hook["state"] == "attached") {
        let name = hook["name"].as_str().unwrap_or_default();
        let kinds: &[&str] = match hook["kind"].as_str() {
            Some("kprobe") => &["k"],
            Some("kprobe+kretprobe") => &["k", "r"],
            _ => &[],
        };
        for kind in kinds {
            let probe = format!("{kind} {name}");
            ensure!(
                probes.contains(&probe),
                "tracer said that it was ready before there was a probe `{probe}`"
            );
            some = true;
        }
    }
    ensure!(some, "tracer is ready with no probe at all");
    // Else their absence in the end would prove nothing.
    ensure!(
        probes.iter().any(|name| name.starts_with(PROGRAM)),
        "the kernel does not tell of tracer's programs"
    );
    Ok(())
}

/// All that is attached to the kernel: probes as `k function` or `r function`, and programs, which the kernel's
/// symbols tell of, so that no tool is needed to list them.
fn attached() -> Result<Vec<String>> {
    const PROBES: &str = "/sys/kernel/debug/kprobes/list";
    const SYMBOLS: &str = "/proc/kallsyms";
    let mut all = Vec::new();
    for line in fs::read_to_string(PROBES).context(PROBES)?.lines() {
        let mut words = line.split_whitespace().skip(1);
        if let (Some(kind), Some(place)) = (words.next(), words.next()) {
            let function = place.split('+').next().unwrap_or(place);
            all.push(format!("{kind} {function}"));
        }
    }
    let symbols = fs::read(SYMBOLS).context(SYMBOLS)?;
    let symbols = String::from_utf8_lossy(&symbols);
    let programs = symbols.lines().filter_map(|line| line.split_whitespace().nth(2));
    all.extend(
        programs
            .filter(|name| name.starts_with(PROGRAM))
            .map(str::to_owned),
    );
    all.sort();
    Ok(all)
}

fn tracer(arguments: &[&str]) -> Command {
    let mut command = Command::new(TRACER_PATH);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program as root without these capabilities. They are dropped in a thread of its own, which only the
/// program inherits from.
fn without(capabilities: &[CapabilitySet], mut program: Command) -> Result<Output> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            for capability in capabilities {
                remove_capability_from_bounding_set(*capability).context("cannot drop a capability")?;
            }
            program.output().context("cannot run tracer")
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a thread without capabilities panicked")))
    })
}

/// Whether tracer refused to run, with one line that names a capability.
fn refused(output: &Output, capability: &str) -> Result<()> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(NO_PRIVILEGE),
        "it ended with {}: {complaint}",
        output.status
    );
    ensure!(
        complaint.lines().count() == 1 && complaint.contains(capability),
        "it did not ask for {capability} in one line: {complaint}"
    );
    ensure!(output.stdout.is_empty(), "it printed something all the same");
    Ok(())
}

/// Whether `tracer hooks` could attach all that it tried to.
fn works(output: &Output) -> Result<()> {
    let table = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && table.contains("attached"),
        "it ended with {}: {}{table}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let refused = table.lines().find(|line| line.contains("the kernel refused it"));
    ensure!(refused.is_none(), "{}", refused.unwrap_or_default());
    Ok(())
}

fn kind(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    line["type"].as_str().unwrap_or_default().to_owned()
}
