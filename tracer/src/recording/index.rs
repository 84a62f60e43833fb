//! The index: the positions of a recording's log chunks, for readers that need only some of them.

use std::io::{Read, Seek, SeekFrom};

use bytes::{Buf as _, BufMut as _};

use super::{
    chunk::{CHUNK_HEADER_LEN, Chunk, ChunkHeader, kind},
    error::RecordingError,
};

/// Position and contents of one log chunk. In the file all numbers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset in bytes from the start of the recording.
    pub at: u64,
    /// Time of the first record or tick, monotonic nanoseconds; 0 if there is none.
    pub first_ns: u64,
    /// Time of the last one.
    pub last_ns: u64,
    /// Number of the next flow that begins in or after the chunk.
    pub next_flow: u64,
    /// Number of kernel records.
    pub records: u32,
}

const ENTRY_LEN: usize = 36;

impl IndexEntry {
    /// The entry of the chunk with this header at this offset.
    #[must_use]
    pub fn of(at: u64, header: &ChunkHeader) -> Self {
        Self {
            at,
            first_ns: header.first_ns,
            last_ns: header.last_ns,
            next_flow: header.next_flow,
            records: header.records,
        }
    }
}

/// Encodes entries as the payload of the index chunk.
#[must_use]
pub fn to_bytes(entries: &[IndexEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY_LEN);
    for entry in entries {
        out.put_u64_le(entry.at);
        out.put_u64_le(entry.first_ns);
        out.put_u64_le(entry.last_ns);
        out.put_u64_le(entry.next_flow);
        out.put_u32_le(entry.records);
    }
    out
}

fn from_bytes(bytes: &[u8]) -> Vec<IndexEntry> {
    let entry = |mut bytes: &[u8]| -> Option<IndexEntry> {
        Some(IndexEntry {
            at: bytes.try_get_u64_le().ok()?,
            first_ns: bytes.try_get_u64_le().ok()?,
            last_ns: bytes.try_get_u64_le().ok()?,
            next_flow: bytes.try_get_u64_le().ok()?,
            records: bytes.try_get_u32_le().ok()?,
        })
    };
    bytes.chunks_exact(ENTRY_LEN).filter_map(entry).collect()
}

/// Reads the index at the end of a recording. `None` if there is none: the recording is incomplete.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Option<Vec<IndexEntry>>, RecordingError> {
    const TRAILER_LEN: usize = CHUNK_HEADER_LEN + size_of::<u64>();
    let end = file.seek(SeekFrom::End(0)).map_err(RecordingError::Read)?;
    let trailer = u64::try_from(TRAILER_LEN).unwrap_or(u64::MAX);
    let Some(trailer) = end.checked_sub(trailer) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(trailer))
        .map_err(RecordingError::Read)?;
    let Some(trailer) = read_chunk(file, kind::TRAILER)? else {
        return Ok(None);
    };
    let Ok(at) = trailer.as_slice().try_get_u64_le() else {
        return Ok(None);
    };
    if at >= end {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at)).map_err(RecordingError::Read)?;
    Ok(read_chunk(file, kind::INDEX)?.map(|payload| from_bytes(&payload)))
}

/// Reads the payload of the chunk at the current position, if it is of this kind.
fn read_chunk(file: &mut impl Read, kind: u8) -> Result<Option<Vec<u8>>, RecordingError> {
    let mut header = [0; CHUNK_HEADER_LEN];
    if file.read_exact(&mut header).is_err() {
        return Ok(None);
    }
    let Some(header) = ChunkHeader::from_bytes(&header).filter(|header| header.kind == kind) else {
        return Ok(None);
    };
    let mut stored = Vec::new();
    file.take(header.stored.into())
        .read_to_end(&mut stored)
        .map_err(RecordingError::Read)?;
    Ok(Chunk { header, stored }.unpack())
}
