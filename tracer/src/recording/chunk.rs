//! Chunks, the units of a recording. Each is complete in itself: it can be read, or is skipped as a whole.

use std::io::{self, Write};

use bytes::{Buf as _, BufMut as _};

/// The first bytes of each chunk, by which a reader finds the next one after damage.
pub const MAGIC: [u8; 4] = *b"TrcK";
/// Length in bytes of a chunk's header.
pub const CHUNK_HEADER_LEN: usize = 56;
/// Upper limit of a payload's length in bytes, packed and unpacked. No writer comes near it.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Kinds of chunks. Readers skip unknown ones.
pub mod kind {
    /// The recording's description of itself ([`crate::finding::head::Head`]) as JSON.
    pub const HEAD: u8 = 1;
    /// Items ([`super::super::item`]).
    pub const LOG: u8 = 2;
    /// The positions of all log chunks ([`super::super::index`]).
    pub const INDEX: u8 = 3;
    /// The position of the index. It is the last chunk of a recording that shut down cleanly.
    pub const TRAILER: u8 = 4;
}

/// Compression of payloads.
pub mod codec {
    /// None.
    pub const PLAIN: u8 = 0;
    /// zstd.
    pub const ZSTD: u8 = 1;
}

/// zstd level: fast enough for every SYN of a busy node, and within a few percent of the size of higher levels.
const LEVEL: i32 = 3;

/// The header of a chunk. In the file all numbers are little-endian, and the header ends with its own checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkHeader {
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`codec`].
    pub codec: u8,
    /// Length in bytes of the payload in the file.
    pub stored: u32,
    /// Length in bytes of the unpacked payload.
    pub raw: u32,
    /// Number of items.
    pub items: u32,
    /// Number of kernel records among them.
    pub records: u32,
    /// Time of the first record or tick, monotonic nanoseconds; 0 if there is none.
    pub first_ns: u64,
    /// Time of the last one.
    pub last_ns: u64,
    /// Number of the next flow that begins in or after this chunk.
    pub next_flow: u64,
    /// CRC-32 of the payload as stored in the file.
    pub crc: u32,
}

/// A packed chunk, as it is stored in the file.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The header.
    pub header: ChunkHeader,
    /// The packed payload.
    pub stored: Vec<u8>,
}

impl Chunk {
    /// Packs a payload, unless that makes it larger. Lengths, codec and checksum of `header` are filled in here.
    pub fn new(header: ChunkHeader, payload: Vec<u8>) -> io::Result<Self> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a chunk is larger than 4 GiB");
        let raw = u32::try_from(payload.len()).map_err(too_long)?;
        let packed = zstd::bulk::compress(&payload, LEVEL)?;
        let (codec, stored) = if packed.len() < payload.len() {
            (codec::ZSTD, packed)
        } else {
            (codec::PLAIN, payload)
        };
        Ok(Self {
            header: ChunkHeader {
                codec,
                stored: u32::try_from(stored.len()).map_err(too_long)?,
                raw,
                crc: crc32fast::hash(&stored),
                ..header
            },
            stored,
        })
    }

    /// Length in bytes in the file.
    #[must_use]
    pub fn len(&self) -> usize {
        CHUNK_HEADER_LEN + self.stored.len()
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Writes header and payload.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.header.to_bytes())?;
        out.write_all(&self.stored)
    }

    /// Checks and unpacks the payload. `None` if it is damaged, too long, or compressed by an unknown codec.
    #[must_use]
    pub fn unpack(self) -> Option<Vec<u8>> {
        let mut raw = Vec::new();
        Unpacker::default().unpack(&self.header, &self.stored, &mut raw)?;
        Some(raw)
    }
}

/// Unpacks payloads, one after the other.
#[derive(Default)]
pub struct Unpacker {
    /// Created with the first compressed payload; a new one for each would take longer than most payloads.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    /// Checks a payload and unpacks it into `raw`, in place of what that holds. `None` if the payload is damaged, too long, or
    /// compressed by an unknown codec.
    pub fn unpack(&mut self, header: &ChunkHeader, stored: &[u8], raw: &mut Vec<u8>) -> Option<()> {
        if stored.len() != usize::try_from(header.stored).ok()? || crc32fast::hash(stored) != header.crc {
            return None;
        }
        raw.clear();
        match header.codec {
            codec::PLAIN => raw.extend_from_slice(stored),
            codec::ZSTD => {
                // In one step: a stream would need a window, which can be larger than the payload.
                raw.reserve_exact(usize::try_from(header.raw.min(MAX_PAYLOAD)).ok()?);
                if self.zstd.is_none() {
                    self.zstd = Some(zstd::bulk::Decompressor::new().ok()?);
                }
                self.zstd.as_mut()?.decompress_to_buffer(stored, raw).ok()?;
            }
            _ => return None,
        }
        (raw.len() == usize::try_from(header.raw).ok()?).then_some(())
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl ChunkHeader {
    /// Encodes the header as it is stored in the file.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CHUNK_HEADER_LEN] {
        let mut out = [0; CHUNK_HEADER_LEN];
        let mut rest = &mut out[..];
        rest.put_slice(&MAGIC);
        rest.put_u8(self.kind);
        rest.put_u8(self.codec);
        rest.put_u16_le(0);
        rest.put_u32_le(self.stored);
        rest.put_u32_le(self.raw);
        rest.put_u32_le(self.items);
        rest.put_u32_le(self.records);
        rest.put_u64_le(self.first_ns);
        rest.put_u64_le(self.last_ns);
        rest.put_u64_le(self.next_flow);
        rest.put_u32_le(self.crc);
        let crc = crc32fast::hash(&out[..CHUNK_HEADER_LEN - 4]);
        out[CHUNK_HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes a header. `None` if these bytes are not a chunk's header, or if a length exceeds [`MAX_PAYLOAD`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8; CHUNK_HEADER_LEN]) -> Option<Self> {
        let (front, mut crc) = bytes.split_at(CHUNK_HEADER_LEN - 4);
        let mut rest = front.strip_prefix(&MAGIC)?;
        if crc.try_get_u32_le().ok()? != crc32fast::hash(front) {
            return None;
        }
        let (kind, codec) = (rest.try_get_u8().ok()?, rest.try_get_u8().ok()?);
        rest.try_get_u16_le().ok()?;
        let head = Self {
            kind,
            codec,
            stored: rest.try_get_u32_le().ok()?,
            raw: rest.try_get_u32_le().ok()?,
            items: rest.try_get_u32_le().ok()?,
            records: rest.try_get_u32_le().ok()?,
            first_ns: rest.try_get_u64_le().ok()?,
            last_ns: rest.try_get_u64_le().ok()?,
            next_flow: rest.try_get_u64_le().ok()?,
            crc: rest.try_get_u32_le().ok()?,
        };
        (head.stored <= MAX_PAYLOAD && head.raw <= MAX_PAYLOAD).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(payload: &[u8]) -> Chunk {
        let head = ChunkHeader {
            kind: kind::LOG,
            items: 2,
            records: 1,
            first_ns: 5,
            last_ns: 6,
            next_flow: 7,
            ..ChunkHeader::default()
        };
        Chunk::new(head, payload.to_vec()).expect("a short payload")
    }

    #[test]
    fn a_header_survives_writing_and_reading_and_every_flipped_bit_is_noticed() {
        let head = packed(&[7; 1000]).header;
        let bytes = head.to_bytes();
        assert_eq!(ChunkHeader::from_bytes(&bytes), Some(head));
        for bit in 0..8 * CHUNK_HEADER_LEN {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ChunkHeader::from_bytes(&wrong), None, "bit {bit}");
        }
    }

    #[test]
    fn a_payload_is_packed_only_if_that_makes_it_smaller() {
        let long = packed(&[7; 10_000]);
        assert!(long.header.codec == codec::ZSTD && long.len() < 200);
        assert_eq!(long.unpack().as_deref(), Some(&[7; 10_000][..]));
        let short = packed(b"x");
        assert_eq!(short.header.codec, codec::PLAIN);
        assert_eq!(short.unpack().as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn a_damaged_payload_is_rejected() {
        let good = packed(&[7; 10_000]);
        for bit in 0..8 * good.stored.len() {
            let mut wrong = good.clone();
            wrong.stored[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(wrong.unpack(), None, "bit {bit}");
        }
        let mut short = good.clone();
        short.stored.pop();
        assert_eq!(short.unpack(), None);
        for raw in [0, 9_999, 10_001, u32::MAX] {
            let mut wrong = good.clone();
            wrong.header.raw = raw;
            assert_eq!(wrong.unpack(), None, "{raw} bytes");
        }
        let mut unknown = good;
        unknown.header.codec = 9;
        assert_eq!(unknown.unpack(), None);
    }

    #[test]
    fn a_header_with_a_length_above_the_limit_is_rejected() {
        for (stored, raw) in [(MAX_PAYLOAD + 1, 1), (1, MAX_PAYLOAD + 1), (u32::MAX, u32::MAX)] {
            let head = ChunkHeader {
                stored,
                raw,
                ..ChunkHeader::default()
            };
            assert_eq!(ChunkHeader::from_bytes(&head.to_bytes()), None);
        }
    }
}
