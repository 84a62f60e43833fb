//! Each flow as a line, for people or in JSON.

use std::{collections::BTreeMap, io::Write};

use super::{
    args::Select,
    exit::Failure,
    select,
    totals::{Counts, Totals},
    view::{self, Told, View},
};
use crate::{
    flow::fate::Fate,
    report::{json, plain},
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
};

/// How lines are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// For programs.
    Json,
    /// For people.
    Plain {
        /// With path, evidence and advice below each.
        verbose: bool,
    },
}

/// See the module.
pub(super) struct Lines<W> {
    out: W,
    form: Form,
    select: Select,
    totals: Totals,
    is_live: bool,
    /// Whence it is told, if that is not the same for all lines; for people as wide as the others.
    host: Option<Host>,
}

/// A host's name, and how wide the widest one is.
struct Host {
    name: String,
    width: usize,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(out: W, form: Form, select: &Select) -> Self {
        Self {
            out,
            form,
            select: select.clone(),
            totals: Totals::default(),
            is_live: true,
            host: None,
        }
    }

    /// It is told together with what others tell: each line says of which host it is.
    pub(super) fn of_host(self, name: String, width: usize) -> Self {
        Self {
            host: Some(Host { name, width }),
            ..self
        }
    }

    /// Where the lines go.
    pub(super) fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// The host, if lines say it.
    fn host(&self) -> Option<&str> {
        self.host.as_ref().map(|host| host.name.as_str())
    }

    /// What stands before a line for people that is no flow.
    fn whence(&self) -> String {
        self.host
            .as_ref()
            .map_or_else(String::new, |host| format!("{}: ", host.name))
    }

    /// What is told of is over.
    pub(super) fn of_recording(self) -> Self {
        Self {
            is_live: false,
            ..self
        }
    }

    /// The exit status that `--fail-on` asks for.
    pub(super) fn fail_on(&self, fate: Option<Fate>) -> Result<(), Failure> {
        match fate {
            Some(fate) if self.totals.counts().by_fate.contains_key(&fate) => {
                Err(Failure::FailOn(fate.name()))
            }
            _ => Ok(()),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }
}

impl<W: Write> View for Lines<W> {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
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

    fn hooks(&mut self, hooks: &Hooks) -> Result<(), Failure> {
        let text = format!("{}: {} hooks attached", hooks.why, hooks.attached);
        match self.form {
            Form::Json => {
                if self.is_live {
                    eprintln!("tracer: {text}");
                }
                let host = self.host();
                self.line(&json::hooks(host, hooks.time, &hooks.why, &hooks.hooks))
            }
            Form::Plain { .. } => self.line(&format!("{}{text}", self.whence())),
        }
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        if !select::is_wanted(&self.select, told) {
            return Ok(());
        }
        let Told {
            flow,
            fate,
            diagnosis,
            facts,
            clock,
        } = told;
        self.totals.said(flow, *fate, diagnosis.cause);
        let line = match self.form {
            Form::Json => {
                let host = self.host();
                json::flow(host, flow, *fate, diagnosis, facts, clock)
            }
            Form::Plain { verbose } => {
                let host = self
                    .host
                    .as_ref()
                    .map(|host| format!("{:<width$}", host.name, width = host.width));
                plain::flow(host.as_deref(), flow, *fate, diagnosis, facts, clock, verbose)
            }
        };
        Ok(writeln!(self.out, "{line}")?)
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
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
                    self.whence()
                )
            }
        };
        self.line(&line)
    }

    fn damage(&mut self, what: &str) -> Result<(), Failure> {
        view::complain(what);
        match self.form {
            Form::Json => {
                let host = self.host();
                self.line(&json::damage(host, what))
            }
            Form::Plain { .. } => Ok(()),
        }
    }

    fn end(&mut self, end: &End) -> Result<(), Failure> {
        let Counts { by_fate, by_cause } = self.totals.counts();
        let flows = self.totals.flows;
        let host = self.host();
        let line = match self.form {
            Form::Json => json::end(host, flows, end.events, end.lost, &by_fate, &by_cause),
            Form::Plain { .. } => format!(
                "{}{}; {} records, {} lost",
                self.whence(),
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

    fn pause(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}
