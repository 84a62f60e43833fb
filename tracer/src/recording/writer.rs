//! Writes a recording: a head, chunks, and an index when it ends in good order.

use std::io::{self, Write};

use super::{
    MAGIC, MAJOR, MINOR, PREAMBLE,
    change::Change,
    chunk::{ChunkHead, Sealed, kind},
    index::{self, Entry},
    item::{self, FRONT, Item, Learned},
};
use crate::{finding::head::Head, flow::begun::Begun};

/// Collects items until they are worth a chunk.
#[derive(Debug, Default)]
pub struct Builder {
    payload: Vec<u8>,
    head: ChunkHead,
    /// Items that were too long for any chunk.
    left_out: u64,
}

impl Builder {
    /// The next flow that begins gets this number.
    #[must_use]
    pub fn new(next_flow: u64) -> Self {
        let head = ChunkHead {
            kind: kind::LOG,
            next_flow,
            ..ChunkHead::default()
        };
        Self {
            head,
            ..Self::default()
        }
    }

    /// Adds an item.
    pub fn add(&mut self, item: &Item<'_>) {
        if !item.write(&mut self.payload) {
            self.left_out += 1;
            return;
        }
        self.head.items += 1;
        let time_ns = match item {
            Item::Record(bytes) => {
                self.head.records += 1;
                // Each begins with its time.
                bytes.first_chunk().copied().map(u64::from_le_bytes)
            }
            Item::Tick(now_ns) => Some(*now_ns),
            _ => None,
        };
        if let Some(time_ns) = time_ns {
            self.head.last_ns = self.head.last_ns.max(time_ns);
            if self.head.first_ns == 0 {
                self.head.first_ns = time_ns;
            }
        }
    }

    /// If the last item is a tick, makes it this one.
    pub fn move_tick(&mut self, now_ns: u64) -> bool {
        const LENGTH: usize = size_of::<u64>();
        let Some(at) = self.payload.len().checked_sub(FRONT + LENGTH) else {
            return false;
        };
        let length = u8::try_from(LENGTH).unwrap_or_default();
        let (front, body) = self.payload[at..].split_at_mut(FRONT);
        if front != [item::kind::TICK, length, 0, 0, 0] {
            return false;
        }
        body.copy_from_slice(&now_ns.to_le_bytes());
        self.head.last_ns = self.head.last_ns.max(now_ns);
        true
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Items that were too long for any chunk, and are in none.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Makes a chunk of what is in it, and begins the next one.
    pub fn seal(&mut self, next_flow: u64) -> io::Result<Sealed> {
        let left_out = self.left_out;
        let Self { payload, head, .. } = std::mem::replace(self, Self::new(next_flow));
        self.left_out = left_out;
        Sealed::new(head, payload)
    }
}

/// Chunks that tell how things stand, for the beginning of a recording whose beginning is elsewhere: the facts, and which
/// flows had begun.
pub fn standing(
    changes: Vec<Change>,
    begun: &Begun,
    next_flow: u64,
    mut take: impl FnMut(&Sealed) -> io::Result<()>,
) -> io::Result<()> {
    let mut builder = Builder::new(next_flow);
    if !begun.is_empty() {
        builder.add(&Item::Begun(begun.clone()));
    }
    for change in changes {
        builder.add(&Item::Facts(Learned { told: None, change }));
        if builder.len() > ENOUGH {
            take(&builder.seal(next_flow)?)?;
        }
    }
    if builder.is_empty() {
        return Ok(());
    }
    take(&builder.seal(next_flow)?)
}

/// So many bytes are worth a chunk: more would hardly be packed better, and be lost together when they are lost.
pub const ENOUGH: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    at: u64,
    index: Vec<Entry>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
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
        writer.write(&bare(kind::HEAD, text)?)?;
        Ok(writer)
    }

    /// Adds a chunk.
    pub fn write(&mut self, chunk: &Sealed) -> io::Result<()> {
        chunk.write(&mut self.out)?;
        if chunk.head.kind == kind::LOG {
            self.index.push(Entry::of(self.at, &chunk.head));
        }
        self.at += u64::try_from(chunk.len()).unwrap_or_default();
        Ok(())
    }

    /// Bytes written so far, in whole chunks.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.at
    }

    /// Where it writes to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the index, and hands back where it wrote to.
    pub fn finish(mut self) -> io::Result<W> {
        let at = self.at;
        let index = bare(kind::INDEX, index::to_bytes(&self.index))?;
        self.write(&index)?;
        self.write(&bare(kind::TRAILER, at.to_le_bytes().to_vec())?)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn bare(kind: u8, payload: Vec<u8>) -> io::Result<Sealed> {
    let head = ChunkHead {
        kind,
        ..ChunkHead::default()
    };
    Sealed::new(head, payload)
}
