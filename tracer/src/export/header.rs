//! Builds the IP and TCP headers of a packet from what a hook recorded of it.
//!
//! Addresses, ports, sequence and acknowledgement number and flags are the packet's own. Hooks record no more: the other
//! fields are the same in all headers ([`NOT_RECORDED`]), and lengths and checksums are those of the headers as built here,
//! without options and data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BufMut as _;

use crate::decode::event::Event;

/// Length of the longest headers, in bytes.
pub const MOST: u16 = IPV6 + TCP;
/// The notes that readers need about the headers.
pub const NOT_RECORDED: &str = "Headers are built from what each hook recorded: addresses, ports, sequence and \
     acknowledgement number, and the flags SYN, ACK, RST and FIN. Not recorded, and the same in all packets: TTL (64), IP \
     identification (0), window (65535), no TCP options, no data. Comments name the outer headers of tunnels.";

const IPV4: u16 = 20;
const IPV6: u16 = 40;
const TCP: u16 = 20;
/// The length of the TCP header in 32-bit words, in the upper half of its byte.
const DATA_OFFSET: u8 = 5 << 4;
/// `IPPROTO_TCP`.
const PROTOCOL: u8 = 6;
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
/// A window that no reader mistakes for a full receiver.
const WINDOW: u16 = u16::MAX;

/// The headers of the packet at this event.
#[must_use]
pub fn of(event: &Event) -> Vec<u8> {
    match (event.tuple.saddr.ip(), event.tuple.daddr.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(event, source, destination),
        (source, destination) => ipv6(event, mapped(source), mapped(destination)),
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn ipv4(event: &Event, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut out = Vec::with_capacity(usize::from(IPV4 + TCP));
    out.extend([0x45, 0]);
    out.put_u16(IPV4 + TCP);
    out.put_u16(0);
    out.put_u16(DONT_FRAGMENT);
    out.extend([TTL, PROTOCOL]);
    out.put_u16(0);
    out.put_u32(source.to_bits());
    out.put_u32(destination.to_bits());
    let checksum = checksum(&out);
    out[10..12].copy_from_slice(&checksum.to_be_bytes());
    let addresses = [source.octets(), destination.octets()].concat();
    tcp(&mut out, event, &addresses);
    out
}

fn ipv6(event: &Event, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut out = Vec::with_capacity(usize::from(MOST));
    out.put_u32(6 << 28);
    out.put_u16(TCP);
    out.extend([PROTOCOL, TTL]);
    let addresses = [source.octets(), destination.octets()].concat();
    out.put_slice(&addresses);
    tcp(&mut out, event, &addresses);
    out
}

fn tcp(out: &mut Vec<u8>, event: &Event, addresses: &[u8]) {
    let begin = out.len();
    out.put_u16(event.tuple.sport);
    out.put_u16(event.tuple.dport);
    out.put_u32(event.seq);
    out.put_u32(event.ack);
    out.extend([DATA_OFFSET, event.flags]);
    out.put_u16(WINDOW);
    // Checksum and urgent pointer.
    out.put_u32(0);
    // The pseudo-headers of IPv4 and IPv6 have the same sum.
    let mut summed = [addresses, &out[begin..]].concat();
    summed.put_u16(u16::from(PROTOCOL));
    summed.put_u16(TCP);
    let checksum = checksum(&summed);
    out[begin + 16..begin + 18].copy_from_slice(&checksum.to_be_bytes());
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let words = words.map(|word| u16::from_be_bytes([word[0], word[1]]));
    !words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        hook::Hook,
        record::Header,
        tcp::{ACK, SYN},
        tuple::{Addr, Tuple},
    };

    use super::*;
    use crate::decode::event::Payload;

    fn headers(source: &str, destination: &str) -> Vec<u8> {
        let address = |text: &str| Addr::from(text.parse::<IpAddr>().expect("an address"));
        let header = Header {
            hook: Hook::NetifReceive as u16,
            tuple: Tuple {
                saddr: address(source),
                daddr: address(destination),
                sport: 41_000,
                dport: 30_080,
            },
            seq: 0x0102_0304,
            ack: 0x0506_0708,
            tcp_flags: SYN | ACK,
            ..Header::default()
        };
        of(&Event::new(&header, Payload::Packet).expect("a known hook"))
    }

    #[test]
    fn ipv4_headers_are_complete() {
        let bytes = headers("10.0.0.2", "10.0.0.1");
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[..4], [0x45, 0, 0, 40]);
        assert_eq!(bytes[8..10], [64, 6]);
        assert_eq!(bytes[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        // A correct checksum makes both sums zero.
        assert_eq!(checksum(&bytes[..20]), 0);
        let pseudo = [&bytes[12..], &[0, 6, 0, 20]].concat();
        assert_eq!(checksum(&pseudo), 0);
        assert_eq!(bytes[20..24], [0xa0, 0x28, 0x75, 0x80]);
        assert_eq!(bytes[24..34], [1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x12]);
    }

    #[test]
    fn ipv6_headers_are_complete() {
        let bytes = headers("fd00::2", "fd00::1");
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        assert_eq!(bytes[8..10], [0xfd, 0]);
        assert_eq!((bytes[23], bytes[39]), (2, 1));
        let pseudo = [&bytes[8..], &[0, 0, 0, 20, 0, 0, 0, 6]].concat();
        assert_eq!(checksum(&pseudo), 0);
        assert_eq!(bytes[40..44], [0xa0, 0x28, 0x75, 0x80]);
    }
}
