//! Each flow as a line, for people or in JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{json, plain};
use crate::finding::{
    Finding, Observer,
    head::Head,
    observer::Buffered,
    run::{End, Health, Hooks},
    selection::Selection,
    totals::{Counts, Totals},
};

/// How lines are written.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// For programs.
    Json,
    /// For people.
    Plain {
        /// With path, evidence and advice below each.
        verbose: bool,
    },
}

/// Writes each flow as a line, with a line for whatever else happens to the run.
pub struct Lines<W> {
    out: W,
    form: Form,
    selection: Selection,
    totals: Totals,
    is_live: bool,
    /// The host, where lines of several hosts come together.
    host: Option<Host>,
}

/// A host's name, and how wide the widest one is.
struct Host {
    name: String,
    width: usize,
}

impl<W: Write> Lines<W> {
    /// Writes to `out` the flows of `selection`, as a live run does.
    pub fn new(out: W, form: Form, selection: &Selection) -> Self {
        Self {
            out,
            form,
            selection: selection.clone(),
            totals: Totals::default(),
            is_live: true,
            host: None,
        }
    }

    /// Each line names its host, because lines of several hosts come together. For people it is padded to `width`.
    #[must_use]
    pub fn of_host(self, name: String, width: usize) -> Self {
        Self {
            host: Some(Host { name, width }),
            ..self
        }
    }

    /// The host, if lines say it.
    fn host(&self) -> Option<&str> {
        self.host.as_ref().map(|host| host.name.as_str())
    }

    /// What precedes a line for people that is not a flow.
    fn prefix(&self) -> String {
        self.host
            .as_ref()
            .map_or_else(String::new, |host| format!("{}: ", host.name))
    }

    /// The run is over: it is read from a recording.
    #[must_use]
    pub fn of_recording(self) -> Self {
        Self {
            is_live: false,
            ..self
        }
    }

    /// What was found out, counted.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }
}

impl<W: Write> Observer for Lines<W> {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        let line = match self.form {
            Form::Json => json::start(head),
            Form::Plain { .. } => {
                let (what, end) = if self.is_live {
                    ("tracing on", "; Ctrl-C ends")
                } else {
                    ("recorded on", "")
                };
                format!(
                    "{what} {}, kernel {}: {} hooks attached, ports followed: {}{end}",
                    head.host,
                    head.kernel,
                    head.attached(),
                    head.ports.len()
                )
            }
        };
        self.line(&line)
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        let text = format!("{}: {} hooks attached", hooks.why, hooks.attached);
        match self.form {
            Form::Json => {
                if self.is_live {
                    eprintln!("tracer: {text}");
                }
                let host = self.host();
                self.line(&json::hooks(host, hooks.time, &hooks.why, &hooks.hooks))
            }
            Form::Plain { .. } => self.line(&format!("{}{text}", self.prefix())),
        }
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        if !self.selection.wants(finding) {
            return Ok(());
        }
        let Finding {
            flow,
            fate,
            diagnosis,
            facts,
            clock,
        } = *finding;
        self.totals.add(finding);
        let line = match self.form {
            Form::Json => {
                let host = self.host();
                json::flow(host, flow, fate, diagnosis, facts, clock)
            }
            Form::Plain { verbose } => {
                let host = self
                    .host
                    .as_ref()
                    .map(|host| format!("{:<width$}", host.name, width = host.width));
                plain::flow(host.as_deref(), flow, fate, diagnosis, facts, clock, verbose)
            }
        };
        writeln!(self.out, "{line}")
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        let lost = health.lost();
        let line = match self.form {
            Form::Json => {
                let by_hook: BTreeMap<&str, u64> = health
                    .lost_by_hook
                    .iter()
                    .map(|(hook, lost)| (hook.as_str(), *lost))
                    .collect();
                let host = self.host();
                json::health(host, health.time, health.events, lost, &by_hook)
            }
            Form::Plain { .. } => {
                format!(
                    "{}{lost} records were lost so far: fates may be wrong; follow fewer ports or clients",
                    self.prefix()
                )
            }
        };
        self.line(&line)
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        eprintln!("tracer: {what}");
        match self.form {
            Form::Json => {
                let host = self.host();
                self.line(&json::damage(host, what))
            }
            Form::Plain { .. } => Ok(()),
        }
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        let Counts { by_fate, by_cause } = self.totals.counts();
        let flows = self.totals.flows();
        let host = self.host();
        let line = match self.form {
            Form::Json => json::end(host, flows, end.events, end.lost, &by_fate, &by_cause),
            Form::Plain { .. } => format!(
                "{}{}; {} records, {} lost",
                self.prefix(),
                match flows {
                    0 => "no flow".to_owned(),
                    1 => format!("1 flow: {}", self.totals.counts().fates()),
                    _ => format!("{flows} flows: {}", self.totals.counts().fates()),
                },
                end.events,
                end.lost
            ),
        };
        self.line(&line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Buffered for Lines<Vec<u8>> {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}
