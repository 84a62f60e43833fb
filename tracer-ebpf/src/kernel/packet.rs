//! The packet in an `sk_buff`.

use network_types::{
    ip::{IpProto, Ipv4Hdr},
    tcp::TcpHdr,
};
use tracer_common::{
    ipv6, tunnel,
    tuple::{Addr, Tuple},
};

use super::fields::{self, read, read_at};

/// What tracer needs of a TCP packet's headers.
pub(super) struct Packet {
    pub(super) skb: u64,
    pub(super) tuple: Tuple,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// Where the headers are those of a packet inside a tunnel: IP protocol and destination of the outer header, an IPv4
    /// address in network byte order. Else 0.
    pub(super) encapsulation: u8,
    pub(super) outer_daddr: u32,
}

impl Packet {
    /// A packet that something else than an `sk_buff` tells of.
    #[inline(always)]
    pub(super) fn without_skb(tuple: Tuple, seq: u32, flags: u8) -> Self {
        Self {
            skb: 0,
            tuple,
            seq,
            ack: 0,
            flags,
            encapsulation: 0,
            outer_daddr: 0,
        }
    }

    /// Was the packet found inside a tunnel? What the `sk_buff` tells besides its headers is about the outer packet then.
    #[inline(always)]
    pub(super) fn is_encapsulated(&self) -> bool {
        self.encapsulation != 0
    }
}

/// The usual case: no IP options. One read brings both headers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Headers {
    ip: Ipv4Hdr,
    tcp: TcpHdr,
}

/// The header of IPv6 is as long as both of these, so that the same read brings it.
#[repr(C)]
#[derive(Clone, Copy)]
union Front {
    v4: Headers,
    v6: ipv6::Header,
}

/// Reads the headers of a TCP packet; `None` for anything else, and for a fragment that does not hold the whole TCP
/// header.
///
/// The TCP header is found through the IP header's length: `transport_header` is not set yet where packets come in.
/// IPv4 comes first and pays nothing for IPv6.
#[inline(always)]
pub(super) fn parse(skb: u64) -> Option<Packet> {
    parse_as::<false>(skb)
}

/// The same, and looks into tunnels over IPv4 as well. For hooks that meet packets which are wrapped already: what a
/// TCP packet costs is the same.
#[inline(always)]
pub(super) fn parse_through_tunnels(skb: u64) -> Option<Packet> {
    parse_as::<true>(skb)
}

#[inline(always)]
fn parse_as<const THROUGH_TUNNELS: bool>(skb: u64) -> Option<Packet> {
    let head: u64 = read(skb, &fields::SK_BUFF_HEAD)?;
    let mut network = u32::from(read::<u16>(skb, &fields::SK_BUFF_NETWORK_HEADER)?);
    let mut start = head.wrapping_add(u64::from(network));
    let mut front: Front = read_at(start)?;
    let (mut encapsulation, mut outer_daddr) = (0, 0);
    if THROUGH_TUNNELS && let Some((protocol, daddr, inner)) = outer(&front) {
        network = network.wrapping_add(inner);
        start = start.wrapping_add(u64::from(inner));
        front = read_at(start)?;
        (encapsulation, outer_daddr) = (protocol, daddr);
    }
    // SAFETY: both are plain bytes, and every bit pattern is a value of either.
    let (v4, v6) = unsafe { (front.v4, front.v6) };
    let (saddr, daddr, tcp) = match v4.ip.version() {
        4 => parse_v4(start, &v4)?,
        6 => parse_v6(skb, start, network, &v6)?,
        _ => return None,
    };
    let flags = (tcp.fin() as u8) | (tcp.syn() as u8) << 1 | (tcp.rst() as u8) << 2 | (tcp.ack() as u8) << 4;
    Some(Packet {
        skb,
        tuple: Tuple {
            saddr,
            daddr,
            sport: u16::from_be_bytes(tcp.source),
            dport: u16::from_be_bytes(tcp.dest),
        },
        seq: u32::from_be_bytes(tcp.seq),
        ack: u32::from_be_bytes(tcp.ack_seq),
        flags,
        encapsulation,
        outer_daddr,
    })
}

/// Protocol and destination of the outer header of a packet inside a tunnel, and where the inner one begins.
#[inline(always)]
fn outer(front: &Front) -> Option<(u8, u32, u32)> {
    // SAFETY: plain bytes, of which every bit pattern is a value.
    let Headers { ip, tcp } = unsafe { front.v4 };
    if ip.version() != 4 || ip.frag_offset() != 0 {
        return None;
    }
    // The ports of UDP stand where those of TCP do; not behind IP options, which no tunnel has.
    let port = u16::from_be_bytes(tcp.dest);
    let inner = tunnel::inner(ip.proto, u32::from(ip.ihl()), port)?;
    Some((ip.proto, u32::from_ne_bytes(ip.dst_addr), inner))
}

#[inline(always)]
fn parse_v4(start: u64, headers: &Headers) -> Option<(Addr, Addr, TcpHdr)> {
    let Headers { ip, mut tcp } = *headers;
    let length = ip.ihl();
    // A first fragment may end inside the TCP header; a real one has room for it.
    if !matches!(ip.proto(), Ok(IpProto::Tcp))
        || ip.frag_offset() != 0
        || usize::from(ip.tot_len()) < usize::from(length) + TcpHdr::LEN
    {
        return None;
    }
    if usize::from(length) != Ipv4Hdr::LEN {
        if usize::from(length) < Ipv4Hdr::LEN {
            return None;
        }
        tcp = read_at(start.wrapping_add(u64::from(length)))?;
    }
    Some((Addr::v4(ip.src_addr), Addr::v4(ip.dst_addr), tcp))
}

#[inline(always)]
fn parse_v6(skb: u64, start: u64, network: u32, header: &ipv6::Header) -> Option<(Addr, Addr, TcpHdr)> {
    let offset = if header.next == ipv6::TCP {
        ipv6::Header::LEN
    } else if ipv6::is_extension(header.next) {
        // What lies behind the end of the linear data is not this packet's.
        let tail: u32 = read(skb, &fields::SK_BUFF_TAIL)?;
        tcp_behind(start, u32::from(header.next), tail.wrapping_sub(network))
    } else {
        return None;
    };
    // The kernel discards packets with a mapped address, and here they would be taken for IPv4.
    if offset == 0
        || !header.holds(offset, TcpHdr::LEN as u32)
        || header.saddr.is_v4()
        || header.daddr.is_v4()
    {
        return None;
    }
    let tcp = read_at(start.wrapping_add(u64::from(offset)))?;
    Some((header.saddr, header.daddr, tcp))
}

/// Where the TCP header lies behind IPv6 extension headers, from the start of the IPv6 header; 0 if it is not there, or
/// not within `room` bytes. Rare: a function of its own, once, and not once in each program.
#[inline(never)]
fn tcp_behind(start: u64, first: u32, room: u32) -> u32 {
    let mut next = first as u8;
    let mut offset = ipv6::Header::LEN;
    for _ in 0..ipv6::MOST_EXTENSIONS {
        let Some(extension) = read_at::<ipv6::Extension>(start.wrapping_add(u64::from(offset))) else {
            return 0;
        };
        let Some(length) = extension.length(next) else {
            return 0;
        };
        offset += length;
        next = extension.next;
        if next == ipv6::TCP {
            let fits = room as i32 >= (offset + TcpHdr::LEN as u32) as i32;
            return if fits { offset } else { 0 };
        }
    }
    0
}
