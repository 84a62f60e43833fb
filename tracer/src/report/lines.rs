//! One line per flow, for people or in JSON.

use std::io::{self, Write};

use super::{
    escape::{clean, note},
    json::{self, Run},
    plain,
};
use crate::diagnose::words;
use crate::finding::{
    Finding, Observer,
    head::Head,
    observer::Buffered,
    run::{End, Health, Hooks},
    selection::Selection,
    totals::Totals,
};

/// The format of the lines.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// JSON, for programs.
    Json,
    /// Text, for people.
    Plain {
        /// Adds path, evidence and advice below each line.
        verbose: bool,
    },
}

/// Writes one line per flow, and one for each other event of the run.
pub struct Lines<W> {
    out: W,
    form: Form,
    selection: Selection,
    totals: Totals,
    /// All flows, selected or not.
    seen: Totals,
    is_live: bool,
    run: Run,
    /// The width of the longest host's name, where lines of several hosts are merged.
    width: usize,
}

impl<W: Write> Lines<W> {
    /// Writes the flows of `selection` to `out`, as a live run does.
    pub fn new(out: W, form: Form, selection: &Selection) -> Self {
        Self {
            out,
            form,
            selection: selection.clone(),
            totals: Totals::default(),
            seen: Totals::default(),
            is_live: true,
            run: Run::default(),
            width: 0,
        }
    }

    /// Names the host in each line, because lines of several hosts are merged. Lines for people pad it to `width`.
    #[must_use]
    pub fn of_host(mut self, name: String, width: usize) -> Self {
        self.run.host = Some(name);
        self.width = width;
        self
    }

    /// The host, if lines name it.
    fn host(&self) -> Option<&str> {
        self.run.host.as_deref()
    }

    /// The start of a line for people that is not a flow.
    fn prefix(&self) -> String {
        self.host().map_or_else(String::new, |host| format!("{host}: "))
    }

    /// Marks the lines as those of a recording, not of a live run.
    #[must_use]
    pub fn of_recording(self) -> Self {
        Self {
            is_live: false,
            ..self
        }
    }

    /// The number of flows and their fates; with a filter, out of how many.
    fn flows(&self) -> String {
        let (flows, fates) = (self.totals.flows(), self.totals.counts().fates());
        let text = match self.seen.flows() {
            0 => return "no flows".to_owned(),
            _ if self.selection.is_empty() => words::count(flows, "flow"),
            seen => format!(
                "{flows} of {} match {}",
                words::count(seen, "flow"),
                self.selection.options()
            ),
        };
        if fates.is_empty() {
            text
        } else {
            format!("{text}: {fates}")
        }
    }

    /// The flows so far, counted.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{}", clean(line))?;
        self.out.flush()
    }
}

impl<W: Write> Observer for Lines<W> {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.run.node_name.clone_from(&head.host);
        self.run.boot_id.clone_from(&head.boot_id);
        let line = match self.form {
            Form::Json => json::start(head),
            Form::Plain { .. } => {
                let (what, end) = if self.is_live {
                    ("tracing on", "; Ctrl-C stops")
                } else {
                    ("recorded on", "")
                };
                format!(
                    "{what} {}, kernel {}: {} attached, tracing {}{}{end}",
                    head.host,
                    head.kernel,
                    words::count(head.attached(), "hook"),
                    words::count(head.ports.len(), "port"),
                    head.confined()
                )
            }
        };
        self.line(&line)
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        let attached = words::count(hooks.attached, "hook");
        let text = format!("{}: {attached} attached", hooks.why);
        match self.form {
            Form::Json => {
                if self.is_live {
                    note(&text);
                }
                let line = json::hooks(self.host(), hooks);
                self.line(&line)
            }
            Form::Plain { .. } => self.line(&format!("{}{text}", self.prefix())),
        }
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        self.seen.add(finding);
        // The last line of a flow stands, even if it is no longer selected.
        if !self.selection.wants(finding) && !self.totals.has(finding.flow.id) {
            return Ok(());
        }
        let replaces = self.totals.add(finding);
        let line = match self.form {
            Form::Json => json::flow(&self.run, finding) + "\n",
            Form::Plain { verbose } => {
                let host = self
                    .host()
                    .map(|host| format!("{host:<width$}", width = self.width));
                plain::flow(host.as_deref(), finding, replaces, verbose).into_string()
            }
        };
        self.out.write_all(line.as_bytes())
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        let line = match self.form {
            Form::Json => json::health(self.host(), health),
            Form::Plain { .. } => {
                let mut parts = Vec::new();
                if health.lost() != 0 {
                    let lost = words::count(health.lost(), "record");
                    parts.push(format!(
                        "{lost} lost so far: fates may be wrong. Trace fewer ports or clients."
                    ));
                }
                let refused = health.refused.iter().find(|(kind, _)| kind == "flow");
                if let Some((_, refused)) = refused {
                    let syns = words::count(*refused, "SYN");
                    parts.push(format!(
                        "{syns} of them not followed: the table of flows was full."
                    ));
                }
                if health.evicted.total() != 0 {
                    parts.push(format!(
                        "{} so far: tracer does not follow evicted flows. Raise --max-flows or --max-memory, or trace fewer clients.",
                        health.evicted
                    ));
                }
                match &health.missed {
                    None => parts.push("This kernel does not count the probes that it skips.".to_owned()),
                    Some(missed) => {
                        let missed = missed.iter().map(|(_, missed)| *missed);
                        let missed = missed.fold(0, u64::saturating_add);
                        if missed != 0 {
                            parts.push(format!("The kernel skipped {}.", words::count(missed, "probe")));
                        }
                    }
                }
                format!("{}{}", self.prefix(), parts.join(" "))
            }
        };
        self.line(&line)
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        note(what);
        match self.form {
            Form::Json => {
                let line = json::damage(self.host(), what);
                self.line(&line)
            }
            Form::Plain { .. } => Ok(()),
        }
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        let line = match self.form {
            Form::Json => json::end(self.host(), end, &self.totals, self.seen.flows()),
            Form::Plain { .. } => format!(
                "{}{}; {}, {} lost{}",
                self.prefix(),
                self.flows(),
                words::count(end.events, "record"),
                end.lost,
                match end.evicted.total() {
                    0 => String::new(),
                    _ => format!("; {}", end.evicted),
                }
            ),
        };
        self.line(&line)
    }

    fn matched(&mut self, what: &str) {
        note(what);
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
