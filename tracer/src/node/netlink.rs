//! Sends netlink requests that consist of a protocol's own header and attributes.

use std::convert::Infallible;
use std::io;

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Buffer size in bytes. The kernel sends at most 32 KiB at once.
const BUFFER_SIZE: usize = 1 << 16;
/// How often reading a list is retried if it changes meanwhile.
const RETRIES: u32 = 8;

/// A netlink socket of one protocol family. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
}

/// A message without netlink's own header.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkSerializable for Body {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Body {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self {
            kind: header.message_type,
            bytes: payload.to_vec(),
        })
    }
}

impl Connection {
    /// Opens a socket of a family, for example `NETLINK_NETFILTER`.
    pub(crate) fn open(family: isize) -> io::Result<Self> {
        let mut socket = Socket::new(family)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and returns the answers, each without netlink's own header.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        head: &[u8],
        attributes: &[DefaultNla],
    ) -> io::Result<Vec<Vec<u8>>> {
        self.send(kind, NLM_F_ACK, head, attributes)?;
        Ok(self.receive()?.0)
    }

    /// Requests a list and returns its entries, each without netlink's own header. The attributes filter it.
    pub(crate) fn list(
        &mut self,
        kind: u16,
        head: &[u8],
        attributes: &[DefaultNla],
    ) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..RETRIES {
            self.send(kind, NLM_F_DUMP, head, attributes)?;
            let (entries, changed) = self.receive()?;
            if !changed {
                return Ok(entries);
            }
        }
        Err(io::Error::other("the list keeps changing"))
    }

    fn send(&mut self, kind: u16, flags: u16, head: &[u8], attributes: &[DefaultNla]) -> io::Result<()> {
        self.sequence += 1;
        let mut bytes = head.to_vec();
        bytes.resize(head.len() + attributes.buffer_len(), 0);
        attributes.emit(&mut bytes[head.len()..]);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Body { kind, bytes }));
        message.finalize();
        let mut packet = vec![0; message.buffer_len()];
        message.serialize(&mut packet);
        self.socket.send(&packet, 0).map(drop)
    }

    /// Receives all answers to the last request, and whether they may be inconsistent (`NLM_F_DUMP_INTR`).
    fn receive(&self) -> io::Result<(Vec<Vec<u8>>, bool)> {
        let mut answers = Vec::new();
        let mut changed = false;
        let mut packet = Vec::with_capacity(BUFFER_SIZE);
        loop {
            packet.clear();
            match self.socket.recv(&mut packet, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(length) if length > packet.len() => {
                    return Err(io::Error::other("a netlink answer is too long"));
                }
                other => other?,
            };
            let mut rest = packet.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<Body>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are aligned to 4 bytes; the length does not include the padding.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                changed |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(body) => answers.push(body.bytes),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok((answers, changed)),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::facts::netlink::{attributes, text};

    #[test]
    fn lists_links() {
        // RTM_GETLINK with an empty ifinfomsg; IFLA_IFNAME is 3.
        let links = Connection::open(NETLINK_ROUTE)
            .unwrap()
            .list(18, &[0; 16], &[])
            .unwrap();
        let names: Vec<_> = links
            .iter()
            .filter_map(|link| {
                attributes(&link[16..])
                    .find(|&(kind, _)| kind == 3)
                    .map(|(_, value)| text(value))
            })
            .collect();
        assert!(names.iter().any(|name| name == "lo"));
    }

    #[test]
    fn an_error_has_the_kernels_number() {
        // RTM_GETLINK of a link that does not exist.
        let mut head = [0; 16];
        head[4..8].copy_from_slice(&0x7fff_0000_u32.to_ne_bytes());
        let error = Connection::open(NETLINK_ROUTE)
            .unwrap()
            .request(18, &head, &[])
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(19));
    }
}
