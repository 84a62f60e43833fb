//! `tracer report`: a summary of recordings.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
};

use super::{args::ReportOptions, confined, exit::Failure, output};
use crate::{
    check::{self, Judged},
    facts::Facts,
    finding::{
        Finding, Observer,
        head::Head,
        observer::Progress,
        run::{End, Health, Hooks},
        selection::Selection,
    },
    pipeline::{
        recordings::{Inputs, Recording},
        replay,
    },
    report::{
        escape, hazards,
        html::Page,
        summary::{self, Collection},
    },
};

/// Reads the recordings and writes the report.
pub(super) fn run(options: &ReportOptions) -> Result<(), Failure> {
    let path = options.html.as_deref().filter(|path| *path != Path::new("-"));
    let inputs = Inputs::open(&options.files)?;
    // Before the recordings are read, so that an output that cannot be written is reported at once.
    let out = output::open(path, &options.files, options.force)?;
    let (runs, mut out) = confined::runs_and_output(&inputs, out)?;
    let (collection, page) = if runs.len() > 1 {
        (Collection::of_several(), Page::of_several())
    } else {
        (Collection::default(), Page::default())
    };
    let mut view = Gather {
        selection: options.select.selection(),
        is_text: !options.json && options.html.is_none(),
        collection,
        page: options.html.is_some().then_some(page),
        files: Vec::new(),
        host: String::new(),
        hazards: Vec::new(),
        meter: Meter::new(inputs.bytes()),
    };
    for run in runs {
        view.files = names(&run);
        replay::play(run, &mut view)?;
        view.meter.next();
    }
    let selection = &view.selection;
    let mut summary = view.collection.summary_of(&|flow| selection.includes(flow));
    if !selection.is_empty() {
        summary.set_filter(selection, view.collection.connections());
    }
    if let Some(page) = view.page {
        out.write_all(page.render(&summary).as_bytes())?;
    } else if options.json {
        writeln!(out, "{}", escape::json(&summary).map_err(io::Error::from)?)?;
    } else {
        out.write_all(summary::text(&summary).as_str().as_bytes())?;
        for (host, judged) in &view.hazards {
            out.write_all(hazards::section(host, judged).as_bytes())?;
        }
    }
    Ok(out.flush()?)
}

/// The file names of a run, without their directories, which mean nothing to readers of the report.
fn names(run: &[Recording]) -> Vec<String> {
    run.iter()
        .map(|recording| {
            let path = recording.path();
            path.file_name().map_or_else(
                || path.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            )
        })
        .collect()
}

struct Gather {
    selection: Selection,
    /// Whether the output is text, on a terminal or in a file.
    is_text: bool,
    collection: Collection,
    page: Option<Page>,
    /// The files of the current run.
    files: Vec<String>,
    /// The node of the current run.
    host: String,
    /// The hazards of each node whose recording has its state.
    hazards: Vec<(String, Vec<Judged>)>,
    meter: Meter,
}

impl Observer for Gather {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.collection.begin(&head.host, &head.kernel);
        self.host.clone_from(&head.host);
        if let Some(page) = &mut self.page {
            page.begin(head, std::mem::take(&mut self.files));
        }
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        if let Some(page) = &mut self.page {
            page.hooks(hooks);
        }
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        // All flows, selected or not: the filter applies to the last report of a flow and, if several nodes saw the
        // connection, to the joined connection.
        self.collection.add(finding);
        if let Some(page) = self.page.as_mut() {
            if self.selection.wants(finding) {
                page.add(finding);
            } else {
                page.remove(finding);
            }
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        if let Some(page) = &mut self.page {
            page.health(health);
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.collection.end(end);
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        self.meter.clear();
        // The text summary contains the damage already.
        if !self.is_text {
            output::warn(what);
        }
        self.collection.damage(what);
        if let Some(page) = &mut self.page {
            page.damage(what);
        }
        Ok(())
    }

    fn facts(&mut self, facts: &Facts) {
        if let Some(node) = &facts.node {
            self.hazards.push((self.host.clone(), check::judge(node)));
        }
        if let Some(page) = &mut self.page {
            page.facts(facts);
        }
    }

    fn progress(&mut self, progress: Progress) {
        self.meter.show(progress);
    }
}

/// Shows progress on a terminal.
struct Meter {
    is_terminal: bool,
    bytes: u64,
    /// Bytes and records of earlier runs.
    before: Progress,
    last: Progress,
}

impl Meter {
    fn new(bytes: u64) -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            bytes,
            before: Progress::default(),
            last: Progress::default(),
        }
    }

    fn show(&mut self, progress: Progress) {
        self.last = progress;
        if self.is_terminal {
            let read = self.before.bytes.saturating_add(progress.bytes);
            // The size of a pipe is unknown.
            let part = match read.saturating_mul(100).checked_div(self.bytes) {
                Some(part) => format!("{} %, ", part.min(100)),
                None => String::new(),
            };
            let records = self.before.events.saturating_add(progress.events);
            // If nobody can read it, the report goes on.
            let _ = write!(io::stderr(), "\r\x1b[Ktracer: {part}{records} records read");
        }
    }

    /// Continues with the next run.
    fn next(&mut self) {
        self.clear();
        self.before.bytes = self.before.bytes.saturating_add(self.last.bytes);
        self.before.events = self.before.events.saturating_add(self.last.events);
        self.last = Progress::default();
    }

    fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
