//! Reads a recording, whole or damaged, from its beginning to its end.

use std::io::{self, Read};

use tracer_common::record::HeaderVersion;

use super::{
    MAGIC, MAJOR, PREAMBLE,
    chunk::{ChunkHead, HEAD_LEN, MARK, Sealed, kind},
    error::TraceError,
    item::Items,
};
use crate::finding::head::Head;

/// Chunks may unpack to so many bytes, and to so many times what was read: no recorder's come near to that. So a small file
/// cannot take all memory.
const MOST_UNPACKED: u64 = 64 << 20;
const MOST_PACKED: u64 = 1000;
/// Longest text that a recording says of itself. A list can take many times the room of its text.
const MOST_HEAD: u32 = 4 << 20;

/// What is wrong with a recording. All else of it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes of a last chunk that is not whole: the recorder was killed, or there was no room.
    pub torn: u64,
    /// Was it ended in good order?
    pub ended: bool,
    /// Chunks whose payload is damaged.
    pub broken_chunks: u64,
    /// Bytes that are part of no chunk.
    pub strange_bytes: u64,
    /// Chunks of a kind that this version does not know.
    pub unknown_chunks: u64,
    /// Chunks of items that were read.
    pub chunks: u64,
}

/// A chunk of items.
#[derive(Clone, Debug)]
pub struct Log {
    /// What stood before it.
    pub head: ChunkHead,
    payload: Vec<u8>,
}

impl Log {
    /// What it tells.
    #[must_use]
    pub fn items(&self) -> Items<'_> {
        Items::of(&self.payload)
    }

    /// Unpacks a chunk that was not written yet; `None` if it is damaged.
    #[must_use]
    pub fn of(chunk: Sealed) -> Option<Self> {
        let head = chunk.head;
        Some(Self {
            head,
            payload: chunk.open()?,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    head: Head,
    damage: Damage,
    read: u64,
    /// Bytes of what was unpacked so far.
    unpacked: u64,
    header_version: HeaderVersion,
}

/// What was found in a place where a chunk should be.
enum Found {
    Chunk(Sealed),
    End,
}

impl<R: Read> Reader<R> {
    /// Reads what the recording says of itself.
    pub fn new(mut input: R) -> Result<Self, TraceError> {
        let mut preamble = [0; PREAMBLE];
        let length = fill(&mut input, &mut preamble)?;
        if !MAGIC.starts_with(&preamble[..length.min(MAGIC.len())]) {
            return Err(TraceError::NotARecording);
        }
        match length {
            0 => return Err(TraceError::Empty),
            PREAMBLE.. => {}
            _ => return Err(TraceError::Cut),
        }
        let major = u16::from_le_bytes([preamble[8], preamble[9]]);
        if major != MAJOR {
            return Err(TraceError::TooNew(major));
        }
        let mut reader = Self {
            input,
            head: Head::default(),
            damage: Damage::default(),
            read: 0,
            unpacked: 0,
            header_version: HeaderVersion::CURRENT,
        };
        reader.read += u64::try_from(length).unwrap_or_default();
        // What follows can only be understood with the head, which is the first chunk.
        let Found::Chunk(chunk) = reader.chunk()? else {
            return Err(TraceError::Cut);
        };
        let is_head = chunk.head.kind == kind::HEAD && chunk.head.raw <= MOST_HEAD;
        if !is_head || reader.damage != Damage::default() {
            return Err(TraceError::Head);
        }
        let text = chunk.open().ok_or(TraceError::Head)?;
        reader.head = serde_json::from_slice(&text).map_err(TraceError::HeadText)?;
        match HeaderVersion::from_number(reader.head.records) {
            Some(version) => {
                reader.header_version = version;
                Ok(reader)
            }
            None => Err(TraceError::NewRecords(reader.head.records)),
        }
    }

    /// The layout of the headers of its records.
    pub fn header_version(&self) -> HeaderVersion {
        self.header_version
    }

    /// What the recording says of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What was found wrong so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// The next chunk of items; `None` at the end.
    pub fn next_log(&mut self) -> Result<Option<Log>, TraceError> {
        loop {
            let Found::Chunk(chunk) = self.chunk()? else {
                return Ok(None);
            };
            match chunk.head.kind {
                kind::LOG => match self.log(chunk) {
                    Some(log) => {
                        self.damage.chunks += 1;
                        return Ok(Some(log));
                    }
                    None => self.damage.broken_chunks += 1,
                },
                kind::TRAILER => self.damage.ended = true,
                kind::HEAD | kind::INDEX => {}
                _ => self.damage.unknown_chunks += 1,
            }
        }
    }

    /// Unpacks a chunk; `None` if it is damaged, or holds more than can be.
    fn log(&mut self, chunk: Sealed) -> Option<Log> {
        let unpacked = self.unpacked + u64::from(chunk.head.raw);
        if unpacked > MOST_UNPACKED.max(self.read.saturating_mul(MOST_PACKED)) {
            return None;
        }
        self.unpacked = unpacked;
        Log::of(chunk)
    }

    fn chunk(&mut self) -> Result<Found, TraceError> {
        let mut bytes = [0; HEAD_LEN];
        let length = self.fill(&mut bytes)?;
        if length < HEAD_LEN {
            self.damage.torn += u64::try_from(length).unwrap_or_default();
            return Ok(Found::End);
        }
        let head = loop {
            if let Some(head) = ChunkHead::from_bytes(&bytes) {
                break head;
            }
            // Damage: the next chunk begins where the next mark is.
            let next = (1..HEAD_LEN).find(|&at| {
                let rest = &bytes[at..];
                MARK.starts_with(&rest[..rest.len().min(MARK.len())])
            });
            let gone = next.unwrap_or(HEAD_LEN);
            bytes.copy_within(gone.., 0);
            let wanted = &mut bytes[HEAD_LEN - gone..];
            let length = fill(&mut self.input, wanted)?;
            self.read += u64::try_from(length).unwrap_or_default();
            self.damage.strange_bytes += u64::try_from(gone).unwrap_or_default();
            if length < gone {
                let rest = HEAD_LEN - gone + length;
                self.damage.strange_bytes += u64::try_from(rest).unwrap_or_default();
                return Ok(Found::End);
            }
        };
        // Grows with what is really there, whatever the head says.
        let mut stored = Vec::new();
        let wanted = u64::from(head.stored);
        let length = self.input.by_ref().take(wanted).read_to_end(&mut stored);
        let length = u64::try_from(length.map_err(TraceError::Read)?).unwrap_or_default();
        self.read += length;
        if length < wanted {
            self.damage.torn += u64::try_from(HEAD_LEN).unwrap_or_default() + length;
            return Ok(Found::End);
        }
        Ok(Found::Chunk(Sealed { head, stored }))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, TraceError> {
        let length = fill(&mut self.input, buffer)?;
        self.read += u64::try_from(length).unwrap_or_default();
        Ok(length)
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, TraceError> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TraceError::Read(error)),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
