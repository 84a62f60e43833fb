//! Prints what happens in guests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tracer_lab::protocol::{Message, Outcome, Traffic};
use tracer_lab::scenario::{KernelName, Named};

use super::observer::Observer;
use super::result::ScenarioResult;

/// A connection that took this long needed a SYN retransmission: Linux waits one second before the first.
const STALL_MS: f64 = 900.0;

/// Failures of a scenario that are printed without `--verbose`.
const MAX_FAILURES: usize = 20;

/// Quick connections that are printed one by one; more are summed up.
const MAX_QUICK: usize = 3;

/// Which output of a scenario is printed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrintMode {
    /// Each line at once.
    Live,
    /// Everything, when the scenario is over: other guests print at the same time.
    PerScenario,
    /// One line per scenario, and everything for one that failed.
    FailuresOnly,
    /// Nothing.
    Silent,
}

/// Counts the finished scenarios of all guests.
#[derive(Debug)]
pub(crate) struct ScenarioCounter {
    total: usize,
    finished: AtomicUsize,
}

impl ScenarioCounter {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            finished: AtomicUsize::new(0),
        }
    }

    /// Counts one more and returns its position, `, 3 of 12`; empty if there is only one scenario.
    fn next(&self) -> String {
        let finished = self.finished.fetch_add(1, Ordering::Relaxed) + 1;
        match self.total {
            0 | 1 => String::new(),
            total => format!(", {finished} of {total}"),
        }
    }
}

/// Prints what happens in the scenarios of one guest.
#[derive(Debug)]
pub(crate) struct Printer<'a> {
    counter: &'a ScenarioCounter,
    kernel: KernelName,
    mode: PrintMode,
    verbose: bool,
    block: String,
    /// The scenario has thousands of flows: only their numbers are printed.
    has_matrix: bool,
    /// Quick connections that are not printed yet.
    quick: Vec<Traffic>,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(
        kernel: &KernelName,
        mode: PrintMode,
        verbose: bool,
        counter: &'a ScenarioCounter,
    ) -> Self {
        Self {
            counter,
            kernel: kernel.clone(),
            mode,
            verbose,
            block: String::new(),
            has_matrix: false,
            quick: Vec::new(),
        }
    }

    /// Prints `text` behind `label`; further lines are indented to the first.
    fn print(&mut self, label: &str, text: &str) {
        let mut lines = text.trim_end().lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(self.block, "  {label:<8} {first}");
        for line in lines {
            let _ = writeln!(self.block, "           {line}");
        }
        if self.mode == PrintMode::Live {
            self.flush();
        }
    }

    /// Prints the block in one write, so that the lines of two guests do not mix.
    fn flush(&mut self) {
        if self.mode != PrintMode::Silent {
            // A closed pipe must not stop the run.
            let _ = io::stdout().lock().write_all(self.block.as_bytes());
        }
        self.block.clear();
    }

    fn client(&mut self, truth: &Traffic) {
        if self.has_matrix {
            return;
        }
        if was_quick(truth) && !self.verbose {
            self.quick.push(truth.clone());
        } else {
            self.print_quick();
            self.print("client", &describe(truth));
        }
    }

    /// Prints the quick connections: many of them in one line.
    fn print_quick(&mut self) {
        let quick = std::mem::take(&mut self.quick);
        if quick.len() <= MAX_QUICK {
            for truth in &quick {
                self.print("client", &describe(truth));
            }
            return;
        }
        let slowest = quick.iter().map(|truth| truth.ms).fold(0.0, f64::max);
        let named = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
        let clients = named(quick.iter().map(|truth| truth.client.as_str()).collect());
        let pods = named(
            quick
                .iter()
                .filter_map(|truth| truth.backend.as_deref())
                .collect(),
        );
        let count = quick.len();
        self.print(
            "client",
            &format!("{clients}: {count} connections, slowest {slowest:.0} ms, answered by {pods}"),
        );
    }

    fn tracer(&mut self, line: &str) {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            self.print("tracer", line);
            return;
        };
        match value["type"].as_str() {
            // The guest sends the path of the few unexpected flows; the rest are in the matrix.
            Some("flow") if self.has_matrix && value["path"].is_null() => {}
            Some("flow") => self.print("flow", &flow(&value, self.verbose)),
            Some("start") => self.print("ready", &format!("tracer, {}", hooks(&value))),
            Some("health") => self.print("LOST", &format!("{} records", value["lost"])),
            Some("end") if self.verbose => {
                let flows = &value["flows"];
                let plural = if *flows == 1 { "" } else { "s" };
                self.print(
                    "end",
                    &format!("{flows} flow{plural}, {} events", value["events"]),
                );
            }
            _ => {}
        }
    }
}

impl Observer for Printer<'_> {
    fn started(&mut self, scenario: &Named) {
        self.has_matrix = scenario.scenario.expect.matrix;
        let (name, title) = (&scenario.name, &scenario.scenario.title);
        let _ = writeln!(self.block, "\n{name} on {}: {title}", self.kernel);
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Ready { release } => eprintln!("      Up  Linux {release}"),
            Message::Note { text } => {
                self.print_quick();
                self.print("step", text);
            }
            Message::Stderr { line } => self.print("stderr", line),
            Message::Tracer { line } => self.tracer(line),
            Message::Traffic(truth) => self.client(truth),
            Message::Recording { .. }
            | Message::Measurement(_)
            | Message::ProgramCost(_)
            | Message::ScreenFailed { .. }
            | Message::Begin { .. }
            | Message::End { .. }
            | Message::Done => {}
        }
    }

    fn finished(&mut self, result: &ScenarioResult) {
        self.print_quick();
        let (scenario, kernel, took) = (&result.scenario, &result.kernel, result.took.as_secs_f64());
        let number = self.counter.next();
        if result.passed() && self.mode == PrintMode::FailuresOnly {
            self.block.clear();
            let _ = writeln!(self.block, "passed  {scenario} on {kernel} ({took:.1} s{number})");
        } else {
            let verdict = if result.passed() { "passed" } else { "FAILED" };
            let mut text = format!("{scenario} on {kernel} ({took:.1} s{number})");
            let most = if self.verbose { usize::MAX } else { MAX_FAILURES };
            for failure in result.failures.iter().take(most) {
                let _ = write!(text, "\n- {failure}");
            }
            if let Some(more @ 1..) = result.failures.len().checked_sub(most) {
                let _ = write!(text, "\n- and {more} more");
            }
            self.print(verdict, &text);
        }
        if let Some(matrix) = &result.matrix {
            self.print("matrix", &matrix.to_string());
        }
        self.flush();
    }
}

/// Whether a connection was made without a retransmission.
pub(crate) fn was_quick(truth: &Traffic) -> bool {
    truth.outcome == Outcome::Connected && truth.ms < STALL_MS
}

/// A connection as its client saw it, in words.
pub(crate) fn describe(truth: &Traffic) -> String {
    let outcome = match truth.outcome {
        Outcome::Connected => "connected",
        Outcome::Refused => "refused",
        Outcome::Timeout => "timed out",
        Outcome::Unreachable => "got ICMP unreachable",
        Outcome::Aborted => "closed its socket",
        Outcome::Silent => "sent its SYNs",
        Outcome::Failed => "failed",
    };
    let mut text = format!(
        "{}:{} {outcome} after {:.0} ms",
        truth.client, truth.source_port, truth.ms
    );
    if let Some(pod) = &truth.backend {
        let _ = write!(text, ", answered by {pod}");
    }
    text
}

/// A flow of tracer's JSON as one line, with its explanation below; `verbose` adds evidence and path.
fn flow(flow: &Value, verbose: bool) -> String {
    let mut text = format!(
        "{} -> {} -> {}  {}",
        endpoint(&flow["client"]),
        endpoint(&flow["node"]),
        endpoint(&flow["backend"]),
        word(&flow["fate"]),
    );
    if let Some(stall) = flow["stall_ms"].as_f64() {
        let _ = write!(text, ", {stall:.0} ms lost");
    }
    if let Some(cause) = flow["cause"].as_str() {
        let _ = write!(text, ", {cause}");
    }
    if let Some(explanation) = flow["explanation"].as_str().filter(|_| flow["cause"].is_string()) {
        let _ = write!(text, "\n{explanation}");
    }
    if !verbose {
        return text;
    }
    if let Some(advice) = flow["advice"].as_str() {
        let _ = write!(text, "\nwhat to do: {advice}");
    }
    for piece in flow["evidence"].as_array().into_iter().flatten() {
        let (what, value, hook) = (word(&piece["what"]), word(&piece["value"]), word(&piece["hook"]));
        let _ = write!(text, "\n{what}: {value} ({hook})");
    }
    for step in flow["path"].as_array().into_iter().flatten() {
        let t = step["t_ms"].as_f64().unwrap_or_default();
        let _ = write!(text, "\n{t:9.3} ms  {}", word(&step["hook"]));
        for field in ["dev", "netns", "verdict", "note"] {
            if !step[field].is_null() {
                let _ = write!(text, "  {field} {}", word(&step[field]));
            }
        }
    }
    text
}

fn endpoint(value: &Value) -> String {
    match (value["ip"].as_str(), value["port"].as_u64()) {
        (Some(ip), Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => "no backend".to_owned(),
    }
}

/// A JSON value, strings without quotes.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn hooks(start: &Value) -> String {
    let states = start["hooks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|hook| &hook["state"]);
    let (mut attached, mut all) = (0, 0);
    for state in states {
        all += 1;
        attached += usize::from(state == "attached");
    }
    format!("{attached} of {all} hooks attached")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flow_is_one_line_with_its_explanation_below() {
        let value = json!({
            "type": "flow", "client": {"ip": "10.0.0.2", "port": 40001}, "node": {"ip": "10.0.0.1", "port": 30080},
            "backend": {"ip": "10.244.1.2", "port": 8080, "name": null}, "fate": "stalled", "stall_ms": 1003.4,
            "cause": "ipvs.reuse-dropped", "explanation": "the client reused a port",
            "evidence": [{"what": "old state", "value": "CLOSE", "hook": "ip_vs_conn_expire_now"}],
            "path": [{"t_ms": 0.5, "hook": "ip_rcv", "dev": "veth0", "netns": null, "verdict": null, "note": null}],
        });
        assert_eq!(
            flow(&value, false),
            "10.0.0.2:40001 -> 10.0.0.1:30080 -> 10.244.1.2:8080  stalled, 1003 ms lost, \
             ipvs.reuse-dropped\nthe client reused a port"
        );
        let verbose = flow(&value, true);
        assert!(
            verbose.contains("old state: CLOSE (ip_vs_conn_expire_now)"),
            "{verbose}"
        );
        assert!(verbose.ends_with("0.500 ms  ip_rcv  dev veth0"), "{verbose}");
    }

    #[test]
    fn null_fields_are_left_out() {
        let value = json!({"type": "flow", "client": {"ip": "10.0.0.2", "port": 1}, "node": {"ip": "10.0.0.1",
            "port": 30080}, "backend": null, "fate": "established", "cause": null, "explanation": "", "stall_ms": null});
        assert_eq!(
            flow(&value, true),
            "10.0.0.2:1 -> 10.0.0.1:30080 -> no backend  established"
        );
    }
}
