//! `tracer live` ends after a time, a number of flows or a match, with the exit status that belongs to it, and runs a command
//! for each flow.

use std::fs;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{ProcessChecks, tracer_command};

/// The file that the command of `--exec` writes.
const OUTPUT: &str = "/run-ends.jsonl";
/// More connections than `--count` wants.
const CONNECTIONS: usize = 4;

/// How a run ended.
struct Ended {
    status: Option<i32>,
    /// The lines of flows.
    flows: Vec<Value>,
    messages: String,
}

impl ProcessChecks<'_> {
    /// Ends runs in every way that options offer.
    pub(super) fn run_ends(&self) -> Result<()> {
        for (arguments, status) in [
            (&["--until", "established"][..], 0),
            (&["--until", "ipvs,established", "--fail-on", "failed"], 0),
            (&["--until", "established", "--fail-on", "established"], 3),
            (&["--count", "1"], 0),
            (&["--duration", "3", "--until", "failed"], 0),
            (&["--duration", "3", "--fail-on", "established,tcp"], 3),
        ] {
            let ended = self.run_to_its_end(arguments, 1)?;
            ensure!(
                ended.status == Some(status) && ended.flows.len() == 1,
                "{arguments:?}: {:?}, expected {status}, with {} flows: {}",
                ended.status,
                ended.flows.len(),
                ended.messages
            );
        }
        let ended = self.run_to_its_end(&["--count", "2"], CONNECTIONS)?;
        ensure!(
            ended.status == Some(0) && ended.flows.len() == 2,
            "--count 2: {:?} with {} flows",
            ended.status,
            ended.flows.len()
        );
        self.runs_a_command()
    }

    fn runs_a_command(&self) -> Result<()> {
        let command = format!("cat >> {OUTPUT}; id -u >> {OUTPUT}");
        let ended = self.run_to_its_end(&["--count", "2", "--exec", &command], 2)?;
        ensure!(
            ended.status == Some(0),
            "--exec: {:?}: {}",
            ended.status,
            ended.messages
        );
        let text = fs::read_to_string(OUTPUT).with_context(|| format!("--exec: {}", ended.messages))?;
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_default())
            .collect();
        let expected: Vec<Value> = ended
            .flows
            .into_iter()
            .flat_map(|flow| [flow, 0.into()])
            .collect();
        ensure!(
            expected.len() == 4 && lines == expected,
            "--exec: the command got {text}"
        );
        fs::remove_file(OUTPUT).with_context(|| format!("cannot remove {OUTPUT}"))
    }

    /// Starts a run, makes connections once it is ready, and waits until it exits by itself.
    fn run_to_its_end(&self, arguments: &[&str], connections: usize) -> Result<Ended> {
        let mut child = tracer_command(&["live", "--json", "--port", &self.to.port().to_string()])
            .args(arguments)
            .spawn()
            .context("cannot run tracer")?;
        let mut out = BufReader::new(child.stdout.take().context("tracer has no standard output")?);
        let mut line = String::new();
        // If no line ever comes, the scenario's watchdog kills tracer, which ends its output.
        out.read_line(&mut line).context("cannot read tracer's output")?;
        for _ in 0..connections {
            self.client.connect_briefly(self.to)?;
        }
        let lines = out.lines().map_while(Result::ok);
        let flows = lines
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .filter(|line| line["type"] == "flow")
            .collect();
        let mut messages = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr
                .read_to_string(&mut messages)
                .context("cannot read tracer's standard error")?;
        }
        let status = child.wait().context("cannot wait for tracer")?;
        Ok(Ended {
            status: status.code(),
            flows,
            messages,
        })
    }
}
