//! tracer as a process: its readiness, its exit, the privileges it needs, and that it leaves nothing in the
//! kernel.

mod confinement;
mod records;
mod run_ends;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
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
use crate::tracer_text::HOOK_REFUSED;

/// How long the kernel may take to free what an exited process had attached.
const FREED: Duration = Duration::from_secs(20);

/// Whether grace periods are expedited, 0 or 1.
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// tracer's exit status when a privilege is missing.
const NO_PRIVILEGE: i32 = 77;

/// A user without any capability.
const NOBODY: u32 = 65_534;

/// The prefix of BPF programs among the kernel's symbols.
const PROGRAM: &str = "bpf_prog_";

/// The capabilities that replace `CAP_SYS_ADMIN` since Linux 5.8.
const FOR_TRACING: [CapabilitySet; 3] = [CapabilitySet::BPF, CapabilitySet::PERFMON, CapabilitySet::SYSLOG];

/// Checks tracer as a process, on a complete node without a running tracer.
#[derive(Debug)]
pub(super) struct ProcessChecks<'a> {
    /// A client that can connect.
    pub(super) client: &'a Client,
    /// The service it connects to.
    pub(super) to: SocketAddr,
    pub(super) port: &'a Port,
    pub(super) cancel: &'a Cancel,
}

impl ProcessChecks<'_> {
    /// Runs a check.
    pub(super) fn check(&self, check: Check) -> Result<()> {
        self.cancel.begin(format!("checking {check:?}"))?;
        let checked = match check {
            Check::Hooks => self.hooks(),
            Check::Ends => self.ends(),
            Check::Privileges => privileges(),
            Check::Confined => self.confined(),
            Check::Records => self.records(),
            Check::RunEnds => self.run_ends(),
        };
        checked.with_context(|| format!("check {check:?}"))
    }

    fn hooks(&self) -> Result<()> {
        let (table, listed) = (
            tracer_command(&["hooks"]).output()?,
            tracer_command(&["hooks", "--json"]).output()?,
        );
        ensure!(
            table.status.success() && listed.status.success(),
            "tracer hooks failed"
        );
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        self.port.note(format!("tracer hooks\n{}", table.trim_end()));
        let listed: Value = serde_json::from_slice(&listed.stdout).context("tracer hooks --json")?;

        let live = LiveTracer::start(self)?;
        let attached = live.hooks.clone();
        live.end(Some(Signal::SIGTERM))?;
        ensure!(
            listed.as_array() == Some(&attached),
            "`tracer hooks` lists {listed}, but `tracer live` {attached:?}"
        );
        ensure!(
            table.lines().count() == attached.len(),
            "expected one line per hook:\n{table}"
        );
        for (line, hook) in table.lines().zip(&attached) {
            let mut words = line.split_whitespace();
            ensure!(
                words.next() == hook["state"].as_str() && words.next() == hook["name"].as_str(),
                "line does not match the hook {hook}: {line}"
            );
            ensure!(words.count() > 1, "no reason given: {line}");
            ensure!(
                (hook["state"] == "attached") == hook["why"].is_null(),
                "state and reason contradict each other: {hook}"
            );
        }
        Ok(())
    }

    fn ends(&self) -> Result<()> {
        let before = attached()?;
        let mut notes = String::new();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
            let ended = LiveTracer::start(self)?.end(Some(signal))?;
            if signal == Signal::SIGKILL {
                ensure!(
                    ended.status.signal() == Some(signal as i32),
                    "{signal}: {}",
                    ended.status
                );
            } else {
                ended.ensure_success().with_context(|| signal.to_string())?;
                ensure!(
                    ended.last.as_deref().is_some_and(|line| kind(line) == "end"),
                    "{signal}: the last line is not `end`, but {:?}",
                    ended.last
                );
                notes = ended.stderr_text;
            }
            self.wait_until_gone(&before)
                .with_context(|| signal.to_string())?;
        }

        self.detaches_quickly().context("time to detach")?;
        self.shows_its_state().context("SIGUSR1")?;

        let mut live = LiveTracer::start(self)?;
        live.out = None;
        self.client.connect_briefly(self.to)?;
        let ended = live.end(None)?;
        ended.ensure_success().context("closed pipe")?;
        // Notes about missing hooks are printed in any case.
        ensure!(
            ended.stderr_text == notes,
            "tracer did not exit quietly on a closed pipe: {}",
            ended.stderr_text
        );
        self.wait_until_gone(&before).context("closed pipe")
    }

    /// Without the boot option of the guests that makes RCU fast.
    fn detaches_quickly(&self) -> Result<()> {
        fs::write(EXPEDITED, "0").context(EXPEDITED)?;
        let took = LiveTracer::start(self).and_then(|live| {
            let began = Instant::now();
            live.end(Some(Signal::SIGINT))?.ensure_success()?;
            Ok(began.elapsed())
        });
        fs::write(EXPEDITED, "1").context(EXPEDITED)?;
        let took = took?;
        self.port
            .note(format!("tracer detached after {} ms", took.as_millis()));
        // Guests of a busy host are slow, so the time is only reported.
        ensure!(took < FREED, "it took {took:?}");
        Ok(())
    }

    /// SIGUSR1 prints a line, and tracing continues.
    fn shows_its_state(&self) -> Result<()> {
        let live = LiveTracer::start(self)?;
        let pid = i32::try_from(live.child.id()).context("tracer's process id is out of range")?;
        kill(Pid::from_raw(pid), Signal::SIGUSR1).context("cannot send tracer a signal")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("tracer is gone")?;
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        self.port
            .note(format!("tracer's own memory: {}", peak.unwrap_or_default()));
        self.cancel.sleep(Duration::from_millis(500))?;
        let ended = live.end(Some(Signal::SIGINT))?;
        ended.ensure_success()?;
        ensure!(
            ended.stderr_text.contains(" attached, ") && ended.stderr_text.contains(" lost"),
            "no line about its state: {}",
            ended.stderr_text
        );
        Ok(())
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
        let unprivileged = tracer_command(arguments).uid(NOBODY).gid(NOBODY).output()?;
        ensure_refused(&unprivileged, "CAP_BPF")
            .with_context(|| format!("as an ordinary user, {arguments:?}"))?;
    }
    let some = [CapabilitySet::SYS_ADMIN, CapabilitySet::PERFMON];
    ensure_refused(&without(&some, tracer_command(&["hooks"]))?, "CAP_PERFMON")
        .context("without CAP_PERFMON")?;
    // Root in a container.
    let all = [FOR_TRACING.as_slice(), &[CapabilitySet::SYS_ADMIN]].concat();
    ensure_refused(&without(&all, tracer_command(&["hooks"]))?, "--profile=sysadmin")
        .context("as root without capabilities")?;
    locked_memory().context("with little locked memory")?;
    outside().context("outside the host's network namespace")?;

    ensure_works(&without(&FOR_TRACING, tracer_command(&["hooks"]))?).context("with CAP_SYS_ADMIN alone")?;
    // Debian's default of 3 requires CAP_SYS_ADMIN; 2 is the kernel's own default.
    let mut paranoia = Changed::default();
    paranoia.set("kernel.perf_event_paranoid", 2)?;
    let output = without(&[CapabilitySet::SYS_ADMIN], tracer_command(&["hooks"]));
    paranoia.restore()?;
    ensure_works(&output?).context("without CAP_SYS_ADMIN")
}

/// With a small limit that cannot be raised, tracer works, or names the limit: kernels before 5.11 charge BPF maps to it.
fn locked_memory() -> Result<()> {
    const SMALL: u64 = 64 << 10;
    let command = tracer_command(&["hooks"]);
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).context("cannot read a limit")?;
    setrlimit(Resource::RLIMIT_MEMLOCK, SMALL, SMALL).context("cannot set a limit")?;
    let output = without(&[CapabilitySet::SYS_RESOURCE], command);
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard).context("cannot restore a limit")?;
    let output = output?;
    if output.status.success() {
        return ensure_works(&output);
    }
    // Struct members that this kernel does not describe are reported before anything is loaded.
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(NO_PRIVILEGE)
            && messages
                .lines()
                .next_back()
                .is_some_and(|line| line.contains("ulimit -l")),
        "tracer exited with {}: {messages}",
        output.status
    );
    Ok(())
}

/// tracer reports what it cannot see from another network namespace.
fn outside() -> Result<()> {
    let output = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
            tracer_command(&["hooks"]).output().context("cannot run tracer")
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a thread in another network namespace panicked")))
    })?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && messages.contains("not in the host's network namespace"),
        "{}: {messages}",
        output.status
    );
    let here = tracer_command(&["hooks"]).output()?;
    let messages = String::from_utf8_lossy(&here.stderr);
    ensure!(
        !messages.contains("namespace"),
        "a warning without reason: {messages}"
    );
    Ok(())
}

/// A `tracer live --json` that is ready.
#[derive(Debug)]
struct LiveTracer {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    hooks: Vec<Value>,
    sandbox: Value,
}

/// How a `tracer live` exited.
#[derive(Debug)]
struct Exited {
    status: ExitStatus,
    last: Option<String>,
    stderr_text: String,
}

impl LiveTracer {
    /// Starts it and waits for its first line. At that point, every probe it reports is in the kernel.
    fn start(checks: &ProcessChecks<'_>) -> Result<Self> {
        let began = Instant::now();
        let mut child = tracer_command(&["live", "--json", "--port", &checks.to.port().to_string()])
            .spawn()
            .context("cannot run tracer")?;
        let mut out = BufReader::new(child.stdout.take().context("tracer has no standard output")?);
        let mut line = String::new();
        // If no line ever comes, the scenario's watchdog kills tracer, which ends its output.
        out.read_line(&mut line).context("cannot read tracer's output")?;
        let took = began.elapsed();
        let probes = attached()?;
        checks
            .port
            .note(format!("tracer was ready after {} ms", took.as_millis()));

        let start: Value = serde_json::from_str(&line).unwrap_or_default();
        let hooks = start["hooks"].as_array().cloned().unwrap_or_default();
        let live = Self {
            child,
            out: Some(out),
            hooks,
            sandbox: start["sandbox"].clone(),
        };
        if let Err(error) = ensure_ready(&start, &live.hooks, &probes) {
            let ended = live.end(Some(Signal::SIGKILL))?;
            return Err(error.context(format!("{line}{}", ended.stderr_text)));
        }
        Ok(live)
    }

    /// Ends it by a signal, or waits until it exits by itself.
    fn end(mut self, signal: Option<Signal>) -> Result<Exited> {
        if let Some(signal) = signal {
            let pid = i32::try_from(self.child.id()).context("tracer's process id is out of range")?;
            kill(Pid::from_raw(pid), signal).context("cannot send tracer a signal")?;
        }
        let lines = self.out.map(|out| out.lines().map_while(Result::ok));
        let last = lines.and_then(Iterator::last);
        let mut stderr_text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr
                .read_to_string(&mut stderr_text)
                .context("cannot read tracer's standard error")?;
        }
        Ok(Exited {
            status: self.child.wait().context("cannot wait for tracer")?,
            last,
            stderr_text,
        })
    }
}

impl Exited {
    fn ensure_success(&self) -> Result<()> {
        ensure!(
            self.status.success(),
            "tracer exited with {}: {}",
            self.status,
            self.stderr_text
        );
        Ok(())
    }
}

/// Checks that the first line is a `start`, and that the probes of all hooks it calls attached exist.
fn ensure_ready(start: &Value, hooks: &[Value], probes: &[String]) -> Result<()> {
    ensure!(start["type"] == "start", "tracer's first line is not `start`");
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
                "tracer reported that it was ready before the probe `{probe}` existed"
            );
            some = true;
        }
    }
    ensure!(some, "tracer is ready without any probe");
    // Otherwise their absence after the exit would prove nothing.
    ensure!(
        probes.iter().any(|name| name.starts_with(PROGRAM)),
        "the kernel's symbols do not list tracer's programs"
    );
    Ok(())
}

/// Everything attached to the kernel: probes as `k function` or `r function`, and BPF programs, read from the
/// kernel's symbols because that needs no tool.
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

fn tracer_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(TRACER_PATH);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program as root without these capabilities. They are dropped in a separate thread, from which only
/// the program inherits.
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

/// Checks that tracer refused to run, with one line that names a capability.
fn ensure_refused(output: &Output, capability: &str) -> Result<()> {
    let stderr_text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(NO_PRIVILEGE),
        "tracer exited with {}: {stderr_text}",
        output.status
    );
    ensure!(
        stderr_text.lines().count() == 1 && stderr_text.contains(capability),
        "expected one line that names {capability}: {stderr_text}"
    );
    ensure!(
        output.stdout.is_empty(),
        "tracer printed to standard output anyway"
    );
    Ok(())
}

/// Checks that `tracer hooks` could attach everything it tried to attach.
fn ensure_works(output: &Output) -> Result<()> {
    let table = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && table.contains("attached"),
        "tracer exited with {}: {}{table}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let refused = table.lines().find(|line| line.contains(HOOK_REFUSED));
    ensure!(refused.is_none(), "{}", refused.unwrap_or_default());
    Ok(())
}

fn kind(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    line["type"].as_str().unwrap_or_default().to_owned()
}
