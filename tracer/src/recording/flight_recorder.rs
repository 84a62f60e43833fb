//! A flight recorder: the last bytes of a recording, kept in memory until they are to be written.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use super::{
    change,
    chunk::Chunk,
    files::{Reservation, create, numbered, reserve},
    item::Item,
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
    /// The reservation of the file, until tracing has begun.
    reservation: Option<Reservation>,
}

impl FlightRecorder {
    /// Keeps the last `capacity` bytes for the file `path`. Fails now if that file cannot be written.
    pub fn open(path: &Path, capacity: u64) -> io::Result<Self> {
        let (_, reservation) = reserve(path)?;
        Ok(Self {
            reservation: Some(reservation),
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

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut writer = Writer::new(create(path)?, &self.head)?;
        let next_flow = self.chunks.front().map_or(1, |chunk| chunk.header.next_flow);
        writer::write_snapshot(change::all_of(&self.facts), &self.begun, next_flow, |chunk| {
            writer.write(chunk)
        })?;
        for chunk in &self.chunks {
            writer.write(chunk)?;
        }
        writer.finish()?.sync_all()
    }
}

impl ChunkSink for FlightRecorder {
    fn begin(&mut self, head: Head) -> io::Result<()> {
        self.head = head;
        if let Some(reservation) = self.reservation.take() {
            reservation.keep();
        }
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
        self.written += 1;
        let path = numbered(&self.path, self.written);
        self.write(&path)?;
        Ok(Some(path.display().to_string()))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.write(&self.path)
    }

    fn bytes(&self) -> u64 {
        self.held
    }
}
