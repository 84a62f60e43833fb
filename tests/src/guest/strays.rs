//! Packets that look like SYNs to a NodePort but are not: fragments, and packets that end within the TCP
//! header.
//!
//! A reader of the usual TCP header offset finds a SYN in each of them, except in those that end before it.
//! None of them ever becomes a complete packet.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

/// Protocol and extension header numbers.
const RAW: i32 = libc::IPPROTO_RAW;
const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;

/// The offset of a later fragment, in units of 8 bytes: well behind a TCP header.
const LATER: u16 = 8;

/// Too few bytes for a TCP header. All fragments but the last have a length that is a multiple of 8.
const TOO_SHORT: usize = 16;

/// Sends one packet of each kind. Their source ports count up from that of `from`.
pub(super) fn send(from: SocketAddr, to: SocketAddr) -> Result<()> {
    let packets = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => of_ipv4(from, to),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => of_ipv6(from, to),
        _ => bail!("{from} and {to} are of different families"),
    };
    // With this protocol, the packet is sent unmodified, with its own IP header.
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(RAW)))
        .context("cannot create a raw socket")?;
    let node = SocketAddr::new(to.ip(), 0).into();
    for packet in packets {
        socket
            .send_to(&packet, &node)
            .with_context(|| format!("cannot send {packet:02x?}"))?;
    }
    Ok(())
}

fn of_ipv4(from: SocketAddrV4, to: SocketAddrV4) -> Vec<Vec<u8>> {
    const MORE: u16 = 1 << 13;
    let mut source_port = from.port();
    let mut packet = |fragment: u16, length: usize| {
        let packet = ipv4(
            *from.ip(),
            *to.ip(),
            source_port,
            fragment,
            &syn(source_port, to.port())[..length],
        );
        source_port += 1;
        packet
    };
    vec![
        packet(MORE, TOO_SHORT),
        packet(LATER | MORE, 16),
        packet(LATER, 20),
        packet(0, TOO_SHORT),
    ]
}

/// The kernel fills in the length, the checksum and, if it is 0, the id; so the id is the source port.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr, number: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0];
    packet.extend(number.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, TCP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

fn of_ipv6(from: SocketAddrV6, to: SocketAddrV6) -> Vec<Vec<u8>> {
    const MORE: u16 = 1;
    let (client, node) = (*from.ip(), *to.ip());
    let ports = |nth: u16| syn(from.port() + nth, to.port());
    let fragment = |nth: u16, offset: u16, payload: &[u8]| {
        let mut header = vec![TCP, 0];
        header.extend(offset.to_be_bytes());
        header.extend(u32::from(from.port() + nth).to_be_bytes());
        header.extend(payload);
        header
    };
    let whole = |next, content: &[u8]| ipv6(client, node, next, content.len(), content);
    let later = LATER << 3;
    // 6 bytes of padding in a header that claims to be 2048 bytes long: the packet ends before that.
    let too_long = [[TCP, 255, 1, 4, 0, 0, 0, 0].as_slice(), &ports(5)].concat();
    let behind = [
        [FRAGMENT, 0, 1, 4, 0, 0, 0, 0].as_slice(),
        &fragment(4, later | MORE, &ports(4)[..16]),
    ]
    .concat();
    vec![
        whole(FRAGMENT, &fragment(0, MORE, &ports(0)[..TOO_SHORT])),
        whole(FRAGMENT, &fragment(1, later | MORE, &ports(1)[..16])),
        whole(FRAGMENT, &fragment(2, later, &ports(2))),
        ipv6(client, node, TCP, TOO_SHORT, &ports(3)),
        whole(HOP_BY_HOP, &behind),
        whole(HOP_BY_HOP, &too_long),
        // IPv4-mapped addresses are invalid on the wire.
        ipv6(mapped(1), mapped(2), TCP, 20, &ports(6)),
    ]
}

fn mapped(last: u8) -> Ipv6Addr {
    Ipv4Addr::new(192, 0, 2, last).to_ipv6_mapped()
}

/// Builds a packet whose header claims that `length` bytes follow.
fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, length: usize, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(length).unwrap_or_default().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(content);
    packet
}

/// The TCP header of a SYN, without a checksum.
fn syn(source_port: u16, to: u16) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    header[12..16].copy_from_slice(&[5 << 4, 2, 0xfa, 0xf0]);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_has_its_own_port_and_length() {
        let packets = of_ipv4(
            "10.0.0.2:42000".parse().unwrap(),
            "10.0.0.1:30080".parse().unwrap(),
        );
        let ports: Vec<[u8; 2]> = packets.iter().map(|packet| [packet[20], packet[21]]).collect();
        assert_eq!(ports, [42000_u16, 42001, 42002, 42003].map(u16::to_be_bytes));
        let packets = of_ipv6(
            "[fd00::2]:42000".parse().unwrap(),
            "[fd00::1]:30080".parse().unwrap(),
        );
        let lengths: Vec<usize> = packets.iter().map(Vec::len).collect();
        assert_eq!(lengths, [64, 64, 68, 60, 72, 68, 60]);
        // A reader that ignores the fragment offset finds a SYN here.
        assert_eq!(packets[2][48..52], [0xa4, 0x12, 0x75, 0x80]);
        assert_eq!(packets[2][61], 2);
    }
}
