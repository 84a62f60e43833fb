//! Tells people what happens in a guest.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tracer_lab::protocol::{Message, Outcome, Traffic};
use tracer_lab::scenario::{KernelName, Named};

use super::play::{Audience, Played};

/// A connection that took this long has had its SYN sent again: Linux waits one second before that.
const STALL_MS: f64 = 900.0;

/// How many things that are wrong with one scenario are told.
const MANY: usize = 20;

/// How many uneventful connections are told one by one.
const FEW: usize = 3;

/// How much is told, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Each line as it happens.
    Live,
    /// A scenario as a whole when it is over, because another guest is telling its own at the same time.
    Blocks,
    /// One line a scenario, and all of it for one that failed.
    Verdicts,
    /// Nothing: someone else looks at what came out.
    Nothing,
}

/// How many scenarios there are, and how many of them are over, in all guests.
#[derive(Debug)]
pub(crate) struct Tally {
    all: usize,
    over: AtomicUsize,
}

impl Tally {
    pub(crate) fn of(all: usize) -> Self {
        Self {
            all,
            over: AtomicUsize::new(0),
        }
    }

    /// One more is over: which one of how many, as the end of what is said of it; nothing where there is but one.
    fn next(&self) -> String {
        let over = self.over.fetch_add(1, Ordering::Relaxed) + 1;
        match self.all {
            0 | 1 => String::new(),
            all => format!(", {over} of {all}"),
        }
    }
}

/// Prints what happens in scenarios.
#[derive(Debug)]
pub(crate) struct Teller<'a> {
    tally: &'a Tally,
    kernel: KernelName,
    detail: Detail,
    verbose: bool,
    block: String,
    /// There are thousands of flows, which are told by their numbers only.
    is_crowd: bool,
    /// Connections that were quick, not told yet.
    quick: Vec<Traffic>,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(kernel: &KernelName, detail: Detail, verbose: bool, tally: &'a Tally) -> Self {
        Self {
            tally,
            kernel: kernel.clone(),
            detail,
            verbose,
            block: String::new(),
            is_crowd: false,
            quick: Vec::new(),
        }
    }

    /// Each line of the text but the first stands below where the first one starts.
    fn say(&mut self, what: &str, text: &str) {
        let mut lines = text.trim_end().lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(self.block, "  {what:<8} {first}");
        for line in lines {
            let _ = writeln!(self.block, "           {line}");
        }
        if self.detail == Detail::Live {
            self.flush();
        }
    }

    /// One write for all of it, so that two guests' lines do not mix.
    fn flush(&mut self) {
        if self.detail != Detail::Nothing {
            // Nobody who has stopped reading can be told so.
            let _ = io::stdout().lock().write_all(self.block.as_bytes());
        }
        self.block.clear();
    }

    fn client(&mut self, truth: &Traffic) {
        if self.is_crowd {
            return;
        }
        if was_quick(truth) && !self.verbose {
            self.quick.push(truth.clone());
        } else {
            self.say_quick();
            self.say("client", &lived(truth));
        }
    }

    /// Tells of the connections that were quick: there is nothing to say of each of fifty.
    fn say_quick(&mut self) {
        let quick = std::mem::take(&mut self.quick);
        if quick.len() <= FEW {
            for truth in &quick {
                self.say("client", &lived(truth));
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
        self.say(
            "client",
            &format!("{clients}: {count} times connected, {slowest:.0} ms at most, answered by {pods}"),
        );
    }

    fn tracer(&mut self, line: &str) {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            self.say("tracer", line);
            return;
        };
        match value["type"].as_str() {
            // The guest hands on all of a few that surprise; the others are counted.
            Some("flow") if self.is_crowd && value["path"].is_null() => {}
            Some("flow") => self.say("flow", &flow(&value, self.verbose)),
            Some("start") => self.say("ready", &format!("tracer, {}", hooks(&value))),
            Some("health") => self.say("LOST", &format!("{} records", value["lost"])),
            Some("end") if self.verbose => {
                let flows = &value["flows"];
                let plural = if *flows == 1 { "" } else { "s" };
                self.say(
                    "end",
                    &format!("{flows} flow{plural}, {} events", value["events"]),
                );
            }
            _ => {}
        }
    }
}

impl Audience for Teller<'_> {
    fn begin(&mut self, scenario: &Named) {
        self.is_crowd = scenario.scenario.expect.matrix;
        let (name, title) = (&scenario.name, &scenario.scenario.title);
        let _ = writeln!(self.block, "\n{name} on {}: {title}", self.kernel);
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Ready { release } => eprintln!("      Up  Linux {release}"),
            Message::Note { text } => {
                self.say_quick();
                self.say("step", text);
            }
            Message::Stderr { line } => self.say("stderr", line),
            Message::Tracer { line } => self.tracer(line),
            Message::Traffic(truth) => self.client(truth),
            Message::Recording { .. }
            | Message::ScreenFailed { .. }
            | Message::Begin { .. }
            | Message::End { .. }
            | Message::Done => {}
        }
    }

    fn end(&mut self, played: &Played) {
        self.say_quick();
        let (scenario, kernel, took) = (&played.scenario, &played.kernel, played.took.as_secs_f64());
        let number = self.tally.next();
        if played.passed() && self.detail == Detail::Verdicts {
            self.block.clear();
            let _ = writeln!(self.block, "passed  {scenario} on {kernel} ({took:.1} s{number})");
        } else {
            let verdict = if played.passed() { "passed" } else { "FAILED" };
            let mut text = format!("{scenario} on {kernel} ({took:.1} s{number})");
            let most = if self.verbose { usize::MAX } else { MANY };
            for trouble in played.troubles.iter().take(most) {
                let _ = write!(text, "\n- {trouble}");
            }
            if let Some(more @ 1..) = played.troubles.len().checked_sub(most) {
                let _ = write!(text, "\n- and {more} more");
            }
            self.say(verdict, &text);
        }
        if let Some(matrix) = &played.matrix {
            self.say("matrix", &matrix.to_string());
        }
        self.flush();
    }
}

/// Whether a connection was made without losing a packet.
pub(crate) fn was_quick(truth: &Traffic) -> bool {
    truth.outcome == Outcome::Connected && truth.ms < STALL_MS
}

/// A connection as its client saw it.
pub(crate) fn lived(truth: &Traffic) -> String {
    let outcome = match truth.outcome {
        Outcome::Connected => "connected",
        Outcome::Refused => "refused",
        Outcome::Timeout => "gave up",
        Outcome::Unreachable => "was told that there is no way",
        Outcome::Aborted => "gave its socket up",
        Outcome::Silent => "had sent its SYNs",
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

/// A flow of tracer's JSON as one line, with its reasons below it if asked for.
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
        let _ = write!(text, "\nadvice: {advice}");
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

/// A JSON value without the quotes of a string.
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
    fn a_flow_is_one_line_and_its_reason() {
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
    fn what_is_not_known_is_not_made_up() {
        let value = json!({"type": "flow", "client": {"ip": "10.0.0.2", "port": 1}, "node": {"ip": "10.0.0.1",
            "port": 30080}, "backend": null, "fate": "established", "cause": null, "explanation": "", "stall_ms": null});
        assert_eq!(
            flow(&value, true),
            "10.0.0.2:1 -> 10.0.0.1:30080 -> no backend  established"
        );
    }
}
