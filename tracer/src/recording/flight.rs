//! A flight recorder: the last so many bytes of a recording, in memory, until somebody wants them.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use super::{
    change,
    chunk::Sealed,
    item::Item,
    reader::Log,
    recorder::{self, Sink, Standing},
    rotate::{Reservation, create, numbered, reserve},
    writer::{self, Writer},
};
use crate::{facts::Facts, finding::head::Head, flow::begun::Begun};

/// See the module.
#[derive(Debug)]
pub struct Flight {
    path: PathBuf,
    /// So many bytes are kept.
    most: u64,
    head: Head,
    chunks: VecDeque<Sealed>,
    held: u64,
    /// The facts before the first chunk that is kept.
    before: Facts,
    /// Flows that had begun by then.
    begun: Begun,
    /// How often it was written while it went on.
    written: u32,
    /// Of the file, until tracing has begun.
    reservation: Option<Reservation>,
}

impl Flight {
    /// Keeps so many bytes, for this file. That it can be written is seen now, and not when it is wanted.
    pub fn open(path: &Path, most: u64) -> io::Result<Self> {
        let (_, reservation) = reserve(path)?;
        Ok(Self {
            reservation: Some(reservation),
            path: path.to_owned(),
            most,
            head: Head::default(),
            chunks: VecDeque::new(),
            held: 0,
            before: Facts::default(),
            begun: Begun::default(),
            written: 0,
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut writer = Writer::new(create(path)?, &self.head)?;
        let next_flow = self.chunks.front().map_or(1, |chunk| chunk.head.next_flow);
        writer::standing(change::whole(&self.before), &self.begun, next_flow, |chunk| {
            writer.write(chunk)
        })?;
        for chunk in &self.chunks {
            writer.write(chunk)?;
        }
        writer.finish()?.sync_all()
    }
}

impl Sink for Flight {
    fn begin(&mut self, head: Head) -> io::Result<()> {
        self.head = head;
        if let Some(reservation) = self.reservation.take() {
            reservation.keep();
        }
        Ok(())
    }

    fn take(&mut self, chunk: Sealed, _: &Standing) -> io::Result<()> {
        let length = |chunk: &Sealed| u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.held += length(&chunk);
        self.chunks.push_back(chunk);
        while self.held > self.most && self.chunks.len() > 1 {
            let Some(oldest) = self.chunks.pop_front() else {
                break;
            };
            self.held -= length(&oldest);
            let Some(log) = Log::of(oldest) else { continue };
            for item in log.items() {
                match item {
                    Ok(Item::Facts(learned)) => {
                        learned.change.apply(&mut self.before);
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
