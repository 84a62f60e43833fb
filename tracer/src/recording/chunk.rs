//! Chunks: what a recording is made of. Each is whole by itself, and is there or is not.

use std::io::{self, Read, Write};

use bytes::{Buf as _, BufMut as _};

/// What each chunk begins with, so that a reader can find the next one behind damage.
pub const MARK: [u8; 4] = *b"TrcK";
/// Bytes before a chunk's payload.
pub const HEAD_LEN: usize = 56;
/// The most that a payload may take in the file, and unpacked. More than any writer writes.
pub const MOST: u32 = 128 << 20;

/// Kinds of chunks. Readers leave out those that they do not know.
pub mod kind {
    /// What the recording says of itself ([`super::super::head::Head`]).
    pub const HEAD: u8 = 1;
    /// What happened, item by item ([`super::super::item`]).
    pub const LOG: u8 = 2;
    /// Where the chunks are ([`super::super::index`]).
    pub const INDEX: u8 = 3;
    /// Where the index is: the last chunk of a recording that was ended in good order.
    pub const TRAILER: u8 = 4;
}

/// How a payload is packed.
pub mod codec {
    /// Not at all.
    pub const PLAIN: u8 = 0;
    /// With zstd.
    pub const ZSTD: u8 = 1;
}

/// Fast enough for every SYN of a busy node, and within a few percent of what more time would save.
const LEVEL: i32 = 3;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkHead {
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`codec`].
    pub codec: u8,
    /// Bytes of the payload in the file.
    pub stored: u32,
    /// Bytes of the payload unpacked.
    pub raw: u32,
    /// Items in it.
    pub items: u32,
    /// Of those, kernel records.
    pub records: u32,
    /// Monotonic time of its first record or tick; 0 without one.
    pub first_ns: u64,
    /// That of its last.
    pub last_ns: u64,
    /// The number that the next flow gets that begins in it.
    pub next_flow: u64,
    /// Checksum of the payload as it is in the file.
    pub crc: u32,
}

/// A chunk as it goes into the file.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What stands before the payload.
    pub head: ChunkHead,
    /// The payload as it is in the file.
    pub stored: Vec<u8>,
}

impl Sealed {
    /// Packs a payload, if that makes it smaller. `head` tells all but lengths, codec and checksum.
    pub fn new(head: ChunkHead, payload: Vec<u8>) -> io::Result<Self> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a chunk is too long");
        let raw = u32::try_from(payload.len()).map_err(too_long)?;
        let packed = zstd::bulk::compress(&payload, LEVEL)?;
        let (codec, stored) = if packed.len() < payload.len() {
            (codec::ZSTD, packed)
        } else {
            (codec::PLAIN, payload)
        };
        Ok(Self {
            head: ChunkHead {
                codec,
                stored: u32::try_from(stored.len()).map_err(too_long)?,
                raw,
                crc: crc32fast::hash(&stored),
                ..head
            },
            stored,
        })
    }

    /// Bytes that it takes in the file.
    #[must_use]
    pub fn len(&self) -> usize {
        HEAD_LEN + self.stored.len()
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Writes it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.head.to_bytes())?;
        out.write_all(&self.stored)
    }

    /// The payload, checked and unpacked; `None` if it is damaged, too long, or packed in an unknown way.
    #[must_use]
    pub fn open(self) -> Option<Vec<u8>> {
        let Self { head, stored } = self;
        if stored.len() != usize::try_from(head.stored).ok()? || crc32fast::hash(&stored) != head.crc {
            return None;
        }
        let raw = match head.codec {
            codec::PLAIN => stored,
            codec::ZSTD => {
                // Grows with what is really there, whatever the head says.
                let mut raw = Vec::new();
                let unpack = zstd::stream::read::Decoder::new(stored.as_slice()).ok()?;
                unpack.take(u64::from(head.raw) + 1).read_to_end(&mut raw).ok()?;
                raw
            }
            _ => return None,
        };
        (raw.len() == usize::try_from(head.raw).ok()?).then_some(raw)
    }
}

impl ChunkHead {
    /// As it stands in the file.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        let mut rest = &mut out[..];
        rest.put_slice(&MARK);
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
        let crc = crc32fast::hash(&out[..HEAD_LEN - 4]);
        out[HEAD_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads it; `None` if this is no head of a chunk, or one with lengths beyond all bounds.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; HEAD_LEN]) -> Option<Self> {
        let (front, mut crc) = bytes.split_at(HEAD_LEN - 4);
        let mut rest = front.strip_prefix(&MARK)?;
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
        (head.stored <= MOST && head.raw <= MOST).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(payload: &[u8]) -> Sealed {
        let head = ChunkHead {
            kind: kind::LOG,
            items: 2,
            records: 1,
            first_ns: 5,
            last_ns: 6,
            next_flow: 7,
            ..ChunkHead::default()
        };
        Sealed::new(head, payload.to_vec()).expect("a short payload")
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_no_bit_of_it_may_change() {
        let head = sealed(&[7; 1000]).head;
        let bytes = head.to_bytes();
        assert_eq!(ChunkHead::from_bytes(&bytes), Some(head));
        for bit in 0..8 * HEAD_LEN {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ChunkHead::from_bytes(&wrong), None, "bit {bit}");
        }
    }

    #[test]
    fn a_payload_comes_back_and_is_packed_where_that_helps() {
        let long = sealed(&[7; 10_000]);
        assert!(long.head.codec == codec::ZSTD && long.len() < 200);
        assert_eq!(long.open().as_deref(), Some(&[7; 10_000][..]));
        let short = sealed(b"x");
        assert_eq!(short.head.codec, codec::PLAIN);
        assert_eq!(short.open().as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn a_damaged_payload_is_none() {
        let good = sealed(&[7; 10_000]);
        for bit in 0..8 * good.stored.len() {
            let mut wrong = good.clone();
            wrong.stored[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(wrong.open(), None, "bit {bit}");
        }
        let mut short = good.clone();
        short.stored.pop();
        assert_eq!(short.open(), None);
        for raw in [0, 9_999, 10_001, u32::MAX] {
            let mut wrong = good.clone();
            wrong.head.raw = raw;
            assert_eq!(wrong.open(), None, "{raw} bytes");
        }
        let mut unknown = good;
        unknown.head.codec = 9;
        assert_eq!(unknown.open(), None);
    }

    #[test]
    fn lengths_beyond_all_bounds_are_no_head() {
        for (stored, raw) in [(MOST + 1, 1), (1, MOST + 1), (u32::MAX, u32::MAX)] {
            let head = ChunkHead {
                stored,
                raw,
                ..ChunkHead::default()
            };
            assert_eq!(ChunkHead::from_bytes(&head.to_bytes()), None);
        }
    }
}
