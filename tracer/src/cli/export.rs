//! `tracer export`: a recording in a format of others.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
};

use super::{
    args::{ExportOptions, Format, Select},
    exit::Failure,
    lines::Form,
    output, play, replay, select,
    view::{Told, View},
};
use crate::{
    export::{capture::Capture, parquet::Table},
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
};

/// Plays the recordings: lines of several runs come by the wall clock, packets run by run.
pub(super) fn run(options: &ExportOptions) -> Result<(), Failure> {
    let output = options.output.as_deref().filter(|path| *path != Path::new("-"));
    if options.to != Format::Jsonl && output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "this format is nothing for a terminal: name a file with --output".to_owned(),
        ));
    }
    // Before the output is made: it may be there already, and be worth something.
    let runs = play::open(&options.files)?;
    let mut out = BufWriter::new(output::open(output, &options.files)?);
    match options.to {
        Format::Jsonl => replay::print(runs, &mut out, Form::Json, &options.select, None)?,
        Format::Pcapng => {
            let mut view = Packets {
                select: options.select.clone(),
                capture: Capture::new(&mut out),
            };
            for run in runs {
                play::play(run, &mut view)?;
            }
            view.capture.end()?;
            if let late @ 1.. = view.capture.late() {
                eprintln!("tracer: {late} packets stand behind later ones; reordercap puts them in order");
            }
        }
        Format::Parquet => {
            let mut view = Rows {
                select: options.select.clone(),
                table: Table::new(&mut out)?,
            };
            for run in runs {
                play::play(run, &mut view)?;
            }
            if let superseded @ 1.. = view.table.close()? {
                eprintln!(
                    "tracer: {superseded} flows changed after their row was written: of rows with the same run and id, \
                     the one with the highest `told` stands"
                );
            }
        }
    }
    Ok(out.flush()?)
}

/// The flows' packets as a capture.
struct Packets<W> {
    select: Select,
    capture: Capture<W>,
}

impl<W: Write> View for Packets<W> {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        Ok(self.capture.begin(head)?)
    }

    fn hooks(&mut self, _: &Hooks) -> Result<(), Failure> {
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        if self.capture.has(told.flow.id) || select::is_wanted(&self.select, told) {
            self.capture
                .add(told.flow, told.fate, &told.diagnosis, told.facts)?;
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
        self.capture.lost(health);
        Ok(())
    }

    fn end(&mut self, _: &End) -> Result<(), Failure> {
        Ok(())
    }
}

/// The flows as a table.
struct Rows<W: Write + Send> {
    select: Select,
    table: Table<W>,
}

impl<W: Write + Send> View for Rows<W> {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        Ok(self.table.begin(head)?)
    }

    fn hooks(&mut self, _: &Hooks) -> Result<(), Failure> {
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        let wanted = select::is_wanted(&self.select, told);
        Ok(self
            .table
            .add(told.flow, told.fate, &told.diagnosis, told.facts, wanted)?)
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
        self.table.lost(health);
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), Failure> {
        self.table.end(end);
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> Result<(), Failure> {
        Ok(self.table.now(now_ns)?)
    }
}
