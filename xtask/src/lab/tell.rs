//! Tells people what happens in a guest.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;
use tracer_lab::protocol::{Message, Outcome, Traffic};
use tracer_lab::scenario::{KernelName, Named};

use super::play::{Audience, Played};

/// Prints each scenario: line by line as it happens, or as one block when it is over.
#[derive(Debug)]
pub(crate) struct Teller {
    kernel: KernelName,
    verbose: bool,
    /// Wait until a scenario is over, because another guest is telling its own at the same time.
    in_blocks: bool,
    block: String,
}

impl Teller {
    pub(crate) fn new(kernel: &KernelName, verbose: bool, in_blocks: bool) -> Self {
        Self {
            kernel: kernel.clone(),
            verbose,
            in_blocks,
            block: String::new(),
        }
    }

    fn say(&mut self, text: &str) {
        self.block.push_str(text);
        self.block.push('\n');
        if !self.in_blocks {
            self.flush();
        }
    }

    /// One write for all of it, so that two guests' lines do not mix.
    fn flush(&mut self) {
        // Nobody who has stopped reading can be told so.
        let _ = io::stdout().lock().write_all(self.block.as_bytes());
        self.block.clear();
    }

    fn tracer(&mut self, line: &str) {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            self.say(&format!("  tracer   {line}"));
            return;
        };
        match value["type"].as_str() {
            Some("flow") => {
                let text = flow(&value, self.verbose);
                self.say(&text);
            }
            Some("start") => self.say(&format!("  ready    tracer, {}", hooks(&value))),
            Some("health") => self.say(&format!("  LOST     {} records", value["lost"])),
            Some("end") if self.verbose => {
                self.say(&format!(
                    "  end      {} flows, {} events",
                    value["flows"], value["events"]
                ));
            }
            _ => {}
        }
    }
}

impl Audience for Teller {
    fn begin(&mut self, scenario: &Named) {
        let heading = format!(
            "\n{} on {}: {}",
            scenario.name, self.kernel, scenario.scenario.title
        );
        self.say(&heading);
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Ready { release } => self.say(&format!("Linux {release} is up")),
            Message::Note { text } => self.say(&format!("  step     {text}")),
            Message::Stderr { line } => self.say(&format!("  stderr   {line}")),
            Message::Tracer { line } => self.tracer(line),
            Message::Traffic(truth) => self.say(&format!("  client   {}", lived(truth))),
            Message::Begin { .. } | Message::End { .. } | Message::Done => {}
        }
    }

    fn end(&mut self, played: &Played) {
        let verdict = if played.passed() { "passed" } else { "FAILED" };
        let mut text = format!("  {verdict}   {} on {}", played.scenario, played.kernel);
        let _ = write!(text, " ({:.1} s)", played.took.as_secs_f64());
        for trouble in &played.troubles {
            let _ = write!(text, "\n           - {trouble}");
        }
        self.say(&text);
        self.flush();
    }
}

/// A connection as its client saw it.
pub(crate) fn lived(truth: &Traffic) -> String {
    let outcome = match truth.outcome {
        Outcome::Connected => "connected",
        Outcome::Refused => "refused",
        Outcome::Timeout => "gave up",
        Outcome::Unreachable => "was told that there is no way",
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
        "  flow     {} -> {} -> {}  {}",
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
        let _ = write!(text, "\n           {explanation}");
    }
    if !verbose {
        return text;
    }
    for piece in flow["evidence"].as_array().into_iter().flatten() {
        let (what, value, hook) = (word(&piece["what"]), word(&piece["value"]), word(&piece["hook"]));
        let _ = write!(text, "\n           {what}: {value} ({hook})");
    }
    for step in flow["path"].as_array().into_iter().flatten() {
        let t = step["t_ms"].as_f64().unwrap_or_default();
        let _ = write!(text, "\n           {t:9.3} ms  {}", word(&step["hook"]));
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
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => "?".to_owned(),
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
            "  flow     10.0.0.2:40001 -> 10.0.0.1:30080 -> 10.244.1.2:8080  stalled, 1003 ms lost, \
             ipvs.reuse-dropped\n           the client reused a port"
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
            "  flow     10.0.0.2:1 -> 10.0.0.1:30080 -> ?  established"
        );
    }
}
