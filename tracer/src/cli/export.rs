//! `tracer export`: recordings in formats for other tools.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    ops::ControlFlow,
    path::Path,
};

use super::{
    args::{ExportOptions, Format},
    confined,
    exit::Failure,
    output, replay as printed,
};
use crate::{
    diagnose::words,
    export::{capture::Capture, parquet::Table},
    finding::{
        Finding, Observer,
        head::Head,
        run::{End, Health},
        selection::Selection,
        totals::Totals,
    },
    pipeline::{recordings::Inputs, replay},
    report::{escape::note, lines::Form},
};

/// Exports the recordings. Lines of several runs are merged by wall-clock time; packets and rows are written run by run.
pub(super) fn run(options: &ExportOptions) -> Result<(), Failure> {
    let output = options.output.as_deref().filter(|path| *path != Path::new("-"));
    if options.to != Format::Jsonl && output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "refusing to write a binary format to a terminal: name a file with --output".to_owned(),
        ));
    }
    let inputs = Inputs::open(&options.files)?;
    let out = output::open(output, &options.files, options.force)?;
    let (runs, out) = confined::runs_and_output(&inputs, out)?;
    let mut out = BufWriter::new(out);
    match options.to {
        Format::Jsonl => printed::print(runs, &mut out, Form::Json, &options.select.selection(), &[])?,
        Format::Pcapng => {
            let mut view = Packets {
                selection: Counted::new(options.select.selection()),
                capture: Capture::new(&mut out),
            };
            for run in runs {
                replay::play(run, &mut view)?;
            }
            view.selection.report_if_none();
            view.capture.end()?;
            if let packets @ 1.. = view.capture.out_of_order() {
                let packets = words::count(packets, "packet");
                note(format_args!(
                    "{packets} out of time order: sort the capture with reordercap"
                ));
            }
        }
        Format::Parquet => {
            let mut view = Rows {
                selection: Counted::new(options.select.selection()),
                table: Table::new(&mut out)?,
            };
            for run in runs {
                replay::play(run, &mut view)?;
            }
            view.selection.report_if_none();
            if let superseded @ 1.. = view.table.close()? {
                note(format_args!(
                    "{} outdated: of rows with the same run and id, use the one with the highest `told`",
                    words::count(superseded, "row")
                ));
            }
        }
    }
    Ok(out.flush()?)
}

/// A selection that counts what it sees, so that an empty result can be explained.
struct Counted {
    selection: Selection,
    has_match: bool,
    /// The flows of the current run, and the number of flows of earlier runs.
    seen: Totals,
    earlier: u64,
}

impl Counted {
    fn new(selection: Selection) -> Self {
        Self {
            selection,
            has_match: false,
            seen: Totals::default(),
            earlier: 0,
        }
    }

    /// Flows are numbered from the start of each run.
    fn begin(&mut self) {
        self.earlier += std::mem::take(&mut self.seen).flows();
    }

    fn wants(&mut self, finding: &Finding<'_>) -> bool {
        self.seen.add(finding);
        let is_wanted = self.selection.wants(finding);
        self.has_match |= is_wanted;
        is_wanted
    }

    fn report_if_none(&self) {
        if !self.has_match && !self.selection.is_empty() {
            let seen = words::count(self.earlier + self.seen.flows(), "flow");
            note(format_args!("0 of {seen} match {}", self.selection.options()));
        }
    }
}

/// Exports packets to a capture.
struct Packets<W> {
    selection: Counted,
    capture: Capture<W>,
}

impl<W: Write> Observer for Packets<W> {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.selection.begin();
        self.capture.begin(head)
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        if self.selection.wants(finding) || self.capture.has(finding.flow.id) {
            self.capture.add(finding)?;
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.capture.lost(health);
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        output::warn(what);
        Ok(())
    }
}

/// Exports flows to a table.
struct Rows<W: Write + Send> {
    selection: Counted,
    table: Table<W>,
}

impl<W: Write + Send> Observer for Rows<W> {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.selection.begin();
        self.table.begin(head)
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        self.table.add(finding, self.selection.wants(finding))
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.table.lost(health);
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.table.end(end);
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        self.table.now(now_ns)?;
        Ok(ControlFlow::Continue(()))
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        output::warn(what);
        Ok(())
    }
}
