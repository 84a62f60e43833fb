//! A flight recorder: the last bytes of a recording, kept in memory until they are written on request or at the end.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    change,
    chunk::Chunk,
    files::numbered,
    item::Item,
    output_file::{self, Existing, OutputFile},
    reader::Log,
    recorder::{self, ChunkSink, Snapshot},
    writer::{self, Writer},
};
use crate::{facts::Facts, finding::head::Head, flow::begun::Begun};

/// Keeps the newest chunks in memory, and writes them to a file on request and at the end.
#[derive(Debug)]
pub struct FlightRecorder {
    path: PathBuf,
    /// How many bytes are kept.
    capacity: u64,
    head: Head,
    chunks: VecDeque<Chunk>,
    held: u64,
    /// The facts as of the start of the first chunk that is kept.
    facts: Facts,
    /// Flows that had begun by then.
    begun: Begun,
    /// How many files were written on request.
    written: u32,
    existing: Existing,
    /// The file, which is empty until the end.
    output: Option<OutputFile>,
}

impl FlightRecorder {
    /// Keeps the last `capacity` bytes for the file `path`. Fails now if that file cannot be written.
    pub fn open(path: &Path, capacity: u64, existing: Existing) -> io::Result<Self> {
        Ok(Self {
            output: Some(OutputFile::open(path, existing)?),
            existing,
            path: path.to_owned(),
            capacity,
            head: Head::default(),
            chunks: VecDeque::new(),
            held: 0,
            facts: Facts::default(),
            begun: Begun::default(),
            written: 0,
        })
    }

    /// Writes everything to a file.
    fn write(&self, file: &mut OutputFile) -> io::Result<()> {
        let mut writer = Writer::new(file.file(), &self.head)?;
        let next_flow = self.chunks.front().map_or(1, |chunk| chunk.header.next_flow);
        writer::write_snapshot(change::all_of(&self.facts), &self.begun, next_flow, |chunk| {
            writer.write(chunk)
        })?;
        for chunk in &self.chunks {
            writer.write(chunk)?;
        }
        let file = writer.finish()?;
        if file.metadata()?.is_file() {
            file.sync_all()?;
        }
        Ok(())
    }

    /// Writes everything to the next numbered file. If that fails, there is no such file.
    fn write_next(&mut self) -> (PathBuf, io::Result<()>) {
        loop {
            self.written += 1;
            let path = numbered(&self.path, self.written);
            // Files of an earlier run stay.
            if self.existing != Existing::Replace && fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            let write = || {
                let mut file = OutputFile::open(&path, self.existing)?;
                self.write(&mut file)?;
                file.keep()?;
                output_file::sync_name(&path);
                Ok(())
            };
            let written = write();
            return (path, written);
        }
    }

    /// Writes everything to the file that was opened at the start. If that fails, no part of a recording is left.
    fn write_last(&mut self) -> io::Result<()> {
        let Some(mut output) = self.output.take() else {
            return Ok(());
        };
        if output.is_removed()? {
            output = OutputFile::open(&self.path, self.existing)?;
        }
        if let Err(error) = output.empty().and_then(|()| self.write(&mut output)) {
            // A file that was there before was empty.
            let _ = output.empty();
            return Err(error);
        }
        output.keep()?;
        output_file::sync_name(&self.path);
        Ok(())
    }
}

/// Adds the path to an error.
fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{}: {error}; no part of it was written", path.display()),
    )
}

impl ChunkSink for FlightRecorder {
    fn begin(&mut self, head: Head) -> io::Result<()> {
        self.head = head;
        Ok(())
    }

    fn add(&mut self, chunk: Chunk, _: &Snapshot) -> io::Result<()> {
        let length = |chunk: &Chunk| u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.held += length(&chunk);
        self.chunks.push_back(chunk);
        while self.held > self.capacity && self.chunks.len() > 1 {
            let Some(oldest) = self.chunks.pop_front() else {
                break;
            };
            self.held -= length(&oldest);
            let Some(log) = Log::of(oldest) else { continue };
            for item in log.items() {
                match item {
                    Ok(Item::Facts(update)) => {
                        update.change.apply(&mut self.facts);
                    }
                    Ok(Item::Record(bytes)) => self.begun.extend(recorder::flow_of(bytes)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<Option<String>> {
        let (path, written) = self.write_next();
        written.map_err(|error| with_path(&path, &error))?;
        Ok(Some(path.display().to_string()))
    }

    fn finish(&mut self) -> io::Result<()> {
        let written = self.write_last();
        written.map_err(|error| with_path(&self.path, &error))
    }

    fn bytes(&self) -> u64 {
        self.held
    }
}
