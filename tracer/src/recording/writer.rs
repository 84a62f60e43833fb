//! Writes a recording: its head, its chunks, and an index when it is completed.

use std::io::{self, Write};

use super::{
    MAGIC, MAJOR, MINOR, PREAMBLE,
    change::FactChange,
    chunk::{Chunk, ChunkHeader, kind},
    index::{self, IndexEntry},
    item::{self, FactUpdate, ITEM_HEADER_LEN, Item},
};
use crate::{finding::head::Head, flow::begun::Begun};

/// Collects items for the next log chunk.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    payload: Vec<u8>,
    header: ChunkHeader,
    /// Number of items that were too long for any chunk.
    oversized: u64,
}

impl ChunkBuilder {
    /// An empty chunk; `next_flow` is the number of the next flow that begins.
    #[must_use]
    pub fn new(next_flow: u64) -> Self {
        let header = ChunkHeader {
            kind: kind::LOG,
            next_flow,
            ..ChunkHeader::default()
        };
        Self {
            header,
            ..Self::default()
        }
    }

    /// Adds an item. One that is too long is counted and dropped.
    pub fn add(&mut self, item: &Item<'_>) {
        if !item.write(&mut self.payload) {
            self.oversized += 1;
            return;
        }
        self.header.items += 1;
        let time_ns = match item {
            Item::Record(bytes) => {
                self.header.records += 1;
                // A record starts with its time.
                bytes.first_chunk().copied().map(u64::from_le_bytes)
            }
            Item::Tick(now_ns) => Some(*now_ns),
            _ => None,
        };
        if let Some(time_ns) = time_ns {
            self.header.last_ns = self.header.last_ns.max(time_ns);
            if self.header.first_ns == 0 {
                self.header.first_ns = time_ns;
            }
        }
    }

    /// Moves the last item to this time if it is a tick. Returns whether it was.
    pub fn move_tick(&mut self, now_ns: u64) -> bool {
        const LENGTH: usize = size_of::<u64>();
        let Some(at) = self.payload.len().checked_sub(ITEM_HEADER_LEN + LENGTH) else {
            return false;
        };
        let length = u8::try_from(LENGTH).unwrap_or_default();
        let (header, body) = self.payload[at..].split_at_mut(ITEM_HEADER_LEN);
        if header != [item::kind::TICK, length, 0, 0, 0] {
            return false;
        }
        body.copy_from_slice(&now_ns.to_le_bytes());
        self.header.last_ns = self.header.last_ns.max(now_ns);
        true
    }

    /// Length in bytes of the items so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Number of items that were too long for any chunk, and are in none.
    #[must_use]
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// Packs the items into a chunk and starts the next one.
    pub fn seal(&mut self, next_flow: u64) -> io::Result<Chunk> {
        let oversized = self.oversized;
        let Self { payload, header, .. } = std::mem::replace(self, Self::new(next_flow));
        self.oversized = oversized;
        Chunk::new(header, payload)
    }
}

/// Hands `write` the first chunks of a recording that continues another one: all facts, and which flows had begun.
pub fn write_snapshot(
    changes: Vec<FactChange>,
    begun: &Begun,
    next_flow: u64,
    mut write: impl FnMut(&Chunk) -> io::Result<()>,
) -> io::Result<()> {
    let mut builder = ChunkBuilder::new(next_flow);
    if !begun.is_empty() {
        builder.add(&Item::Begun(begun.clone()));
    }
    for change in changes {
        builder.add(&Item::Facts(FactUpdate {
            reported: None,
            change,
        }));
        if builder.len() > TARGET_CHUNK_LEN {
            write(&builder.seal(next_flow)?)?;
        }
    }
    if builder.is_empty() {
        return Ok(());
    }
    write(&builder.seal(next_flow)?)
}

/// Unpacked size in bytes at which a chunk is written. Larger ones would compress little better, and more is lost with
/// a damaged one.
pub const TARGET_CHUNK_LEN: usize = 1 << 20;

/// Writes chunks and keeps the index.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes written so far.
    at: u64,
    index: Vec<IndexEntry>,
}

impl<W: Write> Writer<W> {
    /// Writes the preamble and the head.
    pub fn new(mut out: W, head: &Head) -> io::Result<Self> {
        let mut preamble = Vec::with_capacity(PREAMBLE);
        preamble.extend(MAGIC);
        preamble.extend(MAJOR.to_le_bytes());
        preamble.extend(MINOR.to_le_bytes());
        preamble.resize(PREAMBLE, 0);
        out.write_all(&preamble)?;
        let mut writer = Self {
            out,
            at: u64::try_from(preamble.len()).unwrap_or_default(),
            index: Vec::new(),
        };
        let text = serde_json::to_vec(head)?;
        writer.write(&chunk_of(kind::HEAD, text)?)?;
        Ok(writer)
    }

    /// Writes a chunk.
    pub fn write(&mut self, chunk: &Chunk) -> io::Result<()> {
        chunk.write(&mut self.out)?;
        if chunk.header.kind == kind::LOG {
            self.index.push(IndexEntry::of(self.at, &chunk.header));
        }
        self.at += u64::try_from(chunk.len()).unwrap_or_default();
        Ok(())
    }

    /// Bytes written so far. They end with a complete chunk.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.at
    }

    /// The underlying writer.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes index and trailer, and returns the underlying writer.
    pub fn finish(mut self) -> io::Result<W> {
        let at = self.at;
        let index = chunk_of(kind::INDEX, index::to_bytes(&self.index))?;
        self.write(&index)?;
        self.write(&chunk_of(kind::TRAILER, at.to_le_bytes().to_vec())?)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A chunk without items.
fn chunk_of(kind: u8, payload: Vec<u8>) -> io::Result<Chunk> {
    let header = ChunkHeader {
        kind,
        ..ChunkHeader::default()
    };
    Chunk::new(header, payload)
}
