//! Writes the parts of pcapng (draft-ietf-opsawg-pcapng) that tracer needs: sections, interfaces, packets with comments,
//! and counts of lost packets.
//!
//! The output is a stream: nothing is written twice, so a section has no length, and an interface is described just before
//! it is first used.

use std::io::{self, Write};

use bytes::{BufMut as _, BytesMut};

/// Section header block.
const SECTION: u32 = 0x0a0d_0d0a;
/// Interface description block.
const INTERFACE: u32 = 1;
/// Interface statistics block.
const STATISTICS: u32 = 5;
/// Enhanced packet block.
const PACKET: u32 = 6;

/// The magic number that shows the byte order of the section's numbers.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Packets start with an IPv4 or IPv6 header (`LINKTYPE_RAW`).
const RAW_IP: u16 = 101;
/// Times are in nanoseconds.
const NANOSECONDS: u8 = 9;

/// Options of every block.
const END: u16 = 0;
const COMMENT: u16 = 1;
/// Options of a section.
const OS: u16 = 3;
const APPLICATION: u16 = 4;
/// Options of an interface.
const NAME: u16 = 2;
const DESCRIPTION: u16 = 3;
const RESOLUTION: u16 = 9;
/// Options of statistics.
const DROPPED: u16 = 5;

/// The description of a section.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The program that wrote it.
    pub application: String,
    /// The operating system that saw the packets.
    pub os: String,
    /// A comment for readers of the capture.
    pub comment: String,
}

/// Writes pcapng blocks to an output.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// The block being built.
    block: BytesMut,
    /// Number of interfaces in the section.
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self {
            out,
            block: BytesMut::new(),
            interfaces: 0,
        }
    }

    /// Starts a section. Interface numbers start at 0 in each.
    pub fn section(&mut self, section: &Section) -> io::Result<()> {
        self.interfaces = 0;
        self.begin(SECTION);
        self.block.put_u32_le(BYTE_ORDER);
        // Version 1.0, and an unknown length.
        self.block.put_u16_le(1);
        self.block.put_u16_le(0);
        self.block.put_i64_le(-1);
        self.text(OS, &section.os);
        self.text(APPLICATION, &section.application);
        self.text(COMMENT, &section.comment);
        self.write()
    }

    /// Describes an interface of raw IP packets, with a snapshot length of `most` bytes. Returns its number.
    pub fn interface(&mut self, name: &str, description: &str, most: u32) -> io::Result<u32> {
        self.begin(INTERFACE);
        self.block.put_u16_le(RAW_IP);
        self.block.put_u16_le(0);
        self.block.put_u32_le(most);
        self.text(NAME, name);
        self.text(DESCRIPTION, description);
        self.option(RESOLUTION, &[NANOSECONDS]);
        self.write()?;
        let number = self.interfaces;
        self.interfaces += 1;
        Ok(number)
    }

    /// Writes a complete packet seen `nanos` nanoseconds after 1970.
    pub fn packet(
        &mut self,
        interface: u32,
        nanos: u64,
        bytes: &[u8],
        comments: &[String],
    ) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.begin(PACKET);
        self.block.put_u32_le(interface);
        self.time(nanos);
        self.block.put_u32_le(length);
        self.block.put_u32_le(length);
        self.block.put_slice(bytes);
        self.pad();
        for comment in comments {
            self.text(COMMENT, comment);
        }
        self.write()
    }

    /// Writes the number of packets that an interface lost up to this time for lack of room.
    pub fn dropped(&mut self, interface: u32, nanos: u64, packets: u64) -> io::Result<()> {
        self.begin(STATISTICS);
        self.block.put_u32_le(interface);
        self.time(nanos);
        self.option(DROPPED, &packets.to_le_bytes());
        self.write()
    }

    /// Flushes the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.block.put_u32_le(kind);
        // The length, filled in at the end.
        self.block.put_u32_le(0);
    }

    /// Ends the block's options, and the block.
    fn write(&mut self) -> io::Result<()> {
        self.option(END, &[]);
        let length = u32::try_from(self.block.len() + 4).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.block[4..8].copy_from_slice(&length.to_le_bytes());
        self.block.put_u32_le(length);
        self.out.write_all(&self.block)
    }

    /// Adds a time. Its upper half comes first in either byte order.
    fn time(&mut self, nanos: u64) {
        self.block.put_u64_le(nanos.rotate_left(32));
    }

    fn text(&mut self, code: u16, text: &str) {
        if text.is_empty() {
            return;
        }
        // A reader may end a text at a NUL.
        let text = text.replace('\0', "\u{fffd}");
        let end = text.floor_char_boundary(usize::from(u16::MAX));
        self.option(code, &text.as_bytes()[..end]);
    }

    /// Adds an option. Its value has at most 65535 bytes.
    fn option(&mut self, code: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.block.put_u16_le(code);
        self.block.put_u16_le(length);
        self.block.put_slice(&value[..usize::from(length)]);
        self.pad();
    }

    /// Pads the block to a multiple of four bytes.
    fn pad(&mut self) {
        let length = self.block.len().next_multiple_of(4);
        self.block.resize(length, 0);
    }
}
