//! Reads a recording, complete or damaged, from start to end.

use std::io::{self, Read};

use tracer_common::record::HeaderVersion;

use super::{
    MAGIC, MAJOR, PREAMBLE,
    chunk::{CHUNK_HEADER_LEN, Chunk, ChunkHeader, MAGIC as CHUNK_MAGIC, Unpacker, kind},
    error::RecordingError,
    item::Items,
};
use crate::finding::head::Head;

/// Upper limits of what all chunks may unpack to: this many bytes, or this many times the bytes read, whichever is more.
/// No recorder comes near them; they keep a small file from filling the memory.
const MAX_UNPACKED: u64 = 64 << 20;
const MAX_RATIO: u64 = 1000;
/// Upper limit in bytes of the head's JSON. A parsed list can take many times the memory of its text.
const MAX_HEAD: u32 = 4 << 20;

/// The damage to a recording. Everything else was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes of an incomplete last chunk: the recorder was killed or the disk was full.
    pub incomplete_bytes: u64,
    /// Whether the recorder shut down cleanly: the recording has its trailer.
    pub is_complete: bool,
    /// Number of chunks with a damaged payload.
    pub damaged_chunks: u64,
    /// Number of bytes that are not part of any chunk.
    pub stray_bytes: u64,
    /// Number of chunks of an unknown kind.
    pub unknown_chunks: u64,
    /// Number of log chunks that were read.
    pub chunks: u64,
}

/// An unpacked log chunk.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its header.
    pub header: ChunkHeader,
    payload: Vec<u8>,
}

impl Log {
    /// Its items.
    #[must_use]
    pub fn items(&self) -> Items<'_> {
        Items::of(&self.payload)
    }

    /// Unpacks a chunk. `None` if it is damaged.
    #[must_use]
    pub fn of(chunk: Chunk) -> Option<Self> {
        let header = chunk.header;
        Some(Self {
            header,
            payload: chunk.unpack()?,
        })
    }
}

/// Reads a recording chunk by chunk. What is damaged or unknown is skipped and counted.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    head: Head,
    damage: Damage,
    /// Bytes read so far.
    read: u64,
    /// Bytes unpacked so far.
    unpacked: u64,
    header_version: HeaderVersion,
    unpacker: Unpacker,
    /// Memory for the next packed payload.
    stored: Vec<u8>,
    /// Memory for the next unpacked payload.
    payload: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the start of a recording up to its head.
    ///
    /// # Errors
    /// The input is not a recording that this version can read.
    pub fn new(mut input: R) -> Result<Self, RecordingError> {
        let mut preamble = [0; PREAMBLE];
        let length = fill(&mut input, &mut preamble)?;
        if !MAGIC.starts_with(&preamble[..length.min(MAGIC.len())]) {
            return Err(RecordingError::NotARecording);
        }
        match length {
            0 => return Err(RecordingError::Empty),
            PREAMBLE.. => {}
            _ => return Err(RecordingError::Truncated),
        }
        let major = u16::from_le_bytes([preamble[8], preamble[9]]);
        let mut reader = Self {
            input,
            head: Head::default(),
            damage: Damage::default(),
            read: 0,
            unpacked: 0,
            header_version: HeaderVersion::CURRENT,
            unpacker: Unpacker::default(),
            stored: Vec::new(),
            payload: Vec::new(),
        };
        reader.read += u64::try_from(length).unwrap_or_default();
        if major != MAJOR {
            return Err(reader.wrong_major(major));
        }
        // The first chunk is the head, without which nothing else can be interpreted.
        let Some(chunk) = reader.chunk()? else {
            return Err(RecordingError::Truncated);
        };
        let is_head = chunk.header.kind == kind::HEAD && chunk.header.raw <= MAX_HEAD;
        if !is_head || reader.damage != Damage::default() {
            return Err(RecordingError::Head);
        }
        let text = chunk.unpack().ok_or(RecordingError::Head)?;
        reader.head = serde_json::from_slice(&text).map_err(RecordingError::HeadJson)?;
        match HeaderVersion::from_number(reader.head.records) {
            Some(version) => {
                reader.header_version = version;
                Ok(reader)
            }
            None => Err(RecordingError::NewRecords(reader.head.records)),
        }
    }

    /// The error for a major number other than [`MAJOR`]. No checksum covers the number, but the head names the version
    /// that wrote the file.
    fn wrong_major(&mut self, major: u16) -> RecordingError {
        let unknown = RecordingError::UnknownFormat(major);
        let chunk = match self.chunk() {
            Ok(Some(chunk)) if chunk.header.kind == kind::HEAD && chunk.header.raw <= MAX_HEAD => chunk,
            Ok(_) => return unknown,
            Err(error) => return error,
        };
        let head = chunk
            .unpack()
            .and_then(|text| serde_json::from_slice::<Head>(&text).ok());
        match head.and_then(|head| version(&head.tracer)) {
            Some(writer) if version(env!("CARGO_PKG_VERSION")).is_some_and(|own| writer <= own) => {
                RecordingError::Start
            }
            Some(_) => RecordingError::TooNew(major),
            None => unknown,
        }
    }

    /// The layout of the headers of its records.
    pub fn header_version(&self) -> HeaderVersion {
        self.header_version
    }

    /// The recording's description of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The damage found so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Reads the next log chunk; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read. Damage is not an error.
    pub fn next_log(&mut self) -> Result<Option<Log>, RecordingError> {
        loop {
            let Some(chunk) = self.chunk()? else {
                return Ok(None);
            };
            match chunk.header.kind {
                kind::LOG => match self.unpack(chunk) {
                    Some(log) => {
                        self.damage.chunks += 1;
                        return Ok(Some(log));
                    }
                    None => self.damage.damaged_chunks += 1,
                },
                kind::TRAILER => self.damage.is_complete = true,
                kind::HEAD | kind::INDEX => {}
                _ => self.damage.unknown_chunks += 1,
            }
        }
    }

    /// Unpacks a log chunk. `None` if it is damaged, or would exceed the memory limit.
    fn unpack(&mut self, chunk: Chunk) -> Option<Log> {
        let unpacked = self.unpacked + u64::from(chunk.header.raw);
        if unpacked > MAX_UNPACKED.max(self.read.saturating_mul(MAX_RATIO)) {
            return None;
        }
        self.unpacked = unpacked;
        let Chunk { header, stored } = chunk;
        let mut payload = std::mem::take(&mut self.payload);
        let whole = self.unpacker.unpack(&header, &stored, &mut payload);
        self.stored = stored;
        whole.map(|()| Log { header, payload })
    }

    /// Takes back a log that was read, so that the next one can use its memory.
    pub fn recycle(&mut self, log: Log) {
        self.payload = log.payload;
    }

    /// Reads the next chunk of any kind, skipping damage. `None` at the end.
    fn chunk(&mut self) -> Result<Option<Chunk>, RecordingError> {
        let mut bytes = [0; CHUNK_HEADER_LEN];
        let length = self.fill(&mut bytes)?;
        if length < CHUNK_HEADER_LEN {
            self.damage.incomplete_bytes += u64::try_from(length).unwrap_or_default();
            return Ok(None);
        }
        let header = loop {
            if let Some(header) = ChunkHeader::from_bytes(&bytes) {
                break header;
            }
            // Damage: skip to where the next chunk may start.
            let next = (1..CHUNK_HEADER_LEN).find(|&at| {
                let rest = &bytes[at..];
                CHUNK_MAGIC.starts_with(&rest[..rest.len().min(CHUNK_MAGIC.len())])
            });
            let skipped = next.unwrap_or(CHUNK_HEADER_LEN);
            bytes.copy_within(skipped.., 0);
            let wanted = &mut bytes[CHUNK_HEADER_LEN - skipped..];
            let length = fill(&mut self.input, wanted)?;
            self.read += u64::try_from(length).unwrap_or_default();
            self.damage.stray_bytes += u64::try_from(skipped).unwrap_or_default();
            if length < skipped {
                let rest = CHUNK_HEADER_LEN - skipped + length;
                self.damage.stray_bytes += u64::try_from(rest).unwrap_or_default();
                return Ok(None);
            }
        };
        // Grows with the data that is actually there, whatever the header says.
        let mut stored = std::mem::take(&mut self.stored);
        stored.clear();
        let wanted = u64::from(header.stored);
        let length = self.input.by_ref().take(wanted).read_to_end(&mut stored);
        let length = u64::try_from(length.map_err(RecordingError::Read)?).unwrap_or_default();
        self.read += length;
        if length < wanted {
            self.damage.incomplete_bytes += u64::try_from(CHUNK_HEADER_LEN).unwrap_or_default() + length;
            return Ok(None);
        }
        Ok(Some(Chunk { header, stored }))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, RecordingError> {
        let length = fill(&mut self.input, buffer)?;
        self.read += u64::try_from(length).unwrap_or_default();
        Ok(length)
    }
}

/// The numbers of a version, such as `0.1.0` or `1.2.0-rc.1`.
fn version(text: &str) -> Option<[u64; 3]> {
    let core = text.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// Reads until the buffer is full or the input ends. Returns the number of bytes read.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, RecordingError> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RecordingError::Read(error)),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
