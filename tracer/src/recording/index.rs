//! Where the chunks of a recording are, for whoever does not want to read all of it.

use std::io::{Read, Seek, SeekFrom};

use bytes::{Buf as _, BufMut as _};

use super::{
    chunk::{ChunkHead, HEAD_LEN, Sealed, kind},
    error::TraceError,
};

/// One chunk of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins, in bytes from the beginning of the recording.
    pub at: u64,
    /// Monotonic time of its first record or tick; 0 without one.
    pub first_ns: u64,
    /// That of its last.
    pub last_ns: u64,
    /// The number that the next flow gets that begins in it.
    pub next_flow: u64,
    /// Kernel records in it.
    pub records: u32,
}

const ENTRY_LEN: usize = 36;

impl Entry {
    /// The entry of a chunk.
    #[must_use]
    pub fn of(at: u64, head: &ChunkHead) -> Self {
        Self {
            at,
            first_ns: head.first_ns,
            last_ns: head.last_ns,
            next_flow: head.next_flow,
            records: head.records,
        }
    }
}

/// Entries as the payload of a chunk.
#[must_use]
pub fn to_bytes(entries: &[Entry]) -> Vec<u8> {
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

fn from_bytes(bytes: &[u8]) -> Vec<Entry> {
    let entry = |mut bytes: &[u8]| -> Option<Entry> {
        Some(Entry {
            at: bytes.try_get_u64_le().ok()?,
            first_ns: bytes.try_get_u64_le().ok()?,
            last_ns: bytes.try_get_u64_le().ok()?,
            next_flow: bytes.try_get_u64_le().ok()?,
            records: bytes.try_get_u32_le().ok()?,
        })
    };
    bytes.chunks_exact(ENTRY_LEN).filter_map(entry).collect()
}

/// Reads the index of a recording from its end; `None` if it has none, as one that was not ended in good order.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Option<Vec<Entry>>, TraceError> {
    const TRAILER_LEN: usize = HEAD_LEN + size_of::<u64>();
    let end = file.seek(SeekFrom::End(0)).map_err(TraceError::Read)?;
    let trailer = u64::try_from(TRAILER_LEN).unwrap_or(u64::MAX);
    let Some(trailer) = end.checked_sub(trailer) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(trailer)).map_err(TraceError::Read)?;
    let Some(trailer) = chunk(file, kind::TRAILER)? else {
        return Ok(None);
    };
    let Ok(at) = trailer.as_slice().try_get_u64_le() else {
        return Ok(None);
    };
    if at >= end {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at)).map_err(TraceError::Read)?;
    Ok(chunk(file, kind::INDEX)?.map(|payload| from_bytes(&payload)))
}

/// The payload of the chunk here, if it is one of this kind.
fn chunk(file: &mut impl Read, kind: u8) -> Result<Option<Vec<u8>>, TraceError> {
    let mut head = [0; HEAD_LEN];
    if file.read_exact(&mut head).is_err() {
        return Ok(None);
    }
    let Some(head) = ChunkHead::from_bytes(&head).filter(|head| head.kind == kind) else {
        return Ok(None);
    };
    let mut stored = Vec::new();
    file.take(head.stored.into())
        .read_to_end(&mut stored)
        .map_err(TraceError::Read)?;
    Ok(Sealed { head, stored }.open())
}
