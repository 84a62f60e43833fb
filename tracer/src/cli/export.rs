//! `tracer export`: a recording in a format of others.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    args::{ExportOptions, Format, Select},
    exit::Failure,
    lines::Form,
    play,
    record::cannot_write,
    replay, select,
    view::{Told, View},
};
use crate::{
    export::{capture::Capture, parquet::Table},
    trace::{
        head::Head,
        item::{End, Health, Hooks},
        rotate,
    },
};

/// Plays the recordings, run by run.
pub(super) fn run(options: &ExportOptions) -> Result<(), Failure> {
    let output = options.output.as_deref().filter(|path| *path != Path::new("-"));
    if options.to != Format::Jsonl && output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "this format is nothing for a terminal: name a file with --output".to_owned(),
        ));
    }
    // Before the output is made: it may be there already, and be worth something.
    let runs = play::open(&options.files)?;
    let mut out: BufWriter<Box<dyn Write + Send>> = BufWriter::new(match output {
        Some(path) => Box::new(create(path, &options.files)?),
        None => Box::new(io::stdout()),
    });
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

/// Makes the output, which must not be one of the recordings.
fn create(path: &Path, recordings: &[PathBuf]) -> Result<Named, Failure> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let output = identity(path);
    if output.is_some() && recordings.iter().any(|recording| identity(recording) == output) {
        return Err(Failure::Usage(format!(
            "{} is one of the recordings: name another file with --output",
            path.display()
        )));
    }
    Ok(Named {
        file: rotate::create(path).with_context(|| cannot_write(path))?,
        path: path.to_owned(),
    })
}

/// A file whose errors tell its name.
struct Named {
    file: File,
    path: PathBuf,
}

impl Named {
    fn tell(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| self.tell(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| self.tell(&error))
    }
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
