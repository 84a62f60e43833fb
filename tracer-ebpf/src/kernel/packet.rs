//! The packet in an `sk_buff`.

use core::hint::black_box;

use network_types::{ip::Ipv4Hdr, tcp::TcpHdr};
use tracer_common::{
    ipv6, tcp, tunnel,
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

/// The first words of a packet, from its IP header on, as they are in memory: enough for both headers where IP has neither
/// options nor extensions. Behind a shorter packet lies what the kernel keeps behind each, `struct skb_shared_info`.
type Words = [u32; 15];

/// The words of a TCP header that are looked at: ports, sequence number, acknowledgement number, flags.
type TcpWords = [u32; 4];

/// Where the TCP header is in [`Words`] behind either IP header.
const BEHIND_V4: usize = Ipv4Hdr::LEN / 4;
const BEHIND_V6: usize = ipv6::Header::LEN as usize / 4;

/// The flags that are recorded.
const FLAGS: u32 = (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) as u32;

/// Reads the headers of a TCP packet; `None` for anything else, and for a fragment that does not hold the whole TCP
/// header.
///
/// The TCP header is found through the IP header's length: `transport_header` is not set yet where packets come in.
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

/// Which version of IP a packet has, as a number to choose with: a branch would have the verifier go through all that
/// follows twice, in each program.
#[derive(Clone, Copy)]
struct Version {
    /// All bits are set for IPv4, none for IPv6.
    v4: u32,
}

impl Version {
    #[inline(always)]
    fn of(words: &Words) -> Option<Self> {
        let version = words[0] >> 4 & 0xf;
        if version & !2 != 4 {
            return None;
        }
        // The compiler is not to know that this has two values, or it makes branches of it.
        let v4 = black_box((version >> 1 & 1).wrapping_sub(1));
        Some(Self { v4 })
    }

    #[inline(always)]
    fn choose(self, v4: u32, v6: u32) -> u32 {
        v4 & self.v4 | v6 & !self.v4
    }
}

#[inline(always)]
fn parse_as<const THROUGH_TUNNELS: bool>(skb: u64) -> Option<Packet> {
    let head: u64 = read(skb, &fields::SK_BUFF_HEAD)?;
    let mut network = u32::from(read::<u16>(skb, &fields::SK_BUFF_NETWORK_HEADER)?);
    let mut start = head.wrapping_add(u64::from(network));
    let mut words: Words = read_at(start)?;
    let (mut encapsulation, mut outer_daddr) = (0, 0);
    if THROUGH_TUNNELS && let Some((protocol, daddr, inner)) = outer(&words) {
        network = network.wrapping_add(inner);
        start = start.wrapping_add(u64::from(inner));
        words = read_at(start)?;
        (encapsulation, outer_daddr) = (protocol, daddr);
    }
    let version = Version::of(&words)?;
    let tcp = tcp_header(skb, start, network, &words, version)?;
    let (saddr, daddr) = addresses(&words, version)?;
    let [ports, seq, ack, flags] = tcp;
    Some(Packet {
        skb,
        tuple: Tuple {
            saddr,
            daddr,
            sport: u16::from_be(ports as u16),
            dport: u16::from_be((ports >> 16) as u16),
        },
        seq: u32::from_be(seq),
        ack: u32::from_be(ack),
        flags: (flags >> 8 & FLAGS) as u8,
        encapsulation,
        outer_daddr,
    })
}

/// Finds the TCP header; `None` if there is none, or not the whole of it.
#[inline(always)]
fn tcp_header(skb: u64, start: u64, network: u32, words: &Words, version: Version) -> Option<TcpWords> {
    let own = ihl(words);
    // Next header and, for IPv4, protocol.
    let next = version.choose(words[2] >> 8, words[1] >> 16) & 0xff;
    // Flags and offset of a fragment. IPv6 has them in a header of its own.
    let fragment = swap(words[1] >> 16) & FRAGMENT_OFFSET & version.v4;
    let length = version.choose(own, ipv6::Header::LEN);
    // Of a jumbogram, which is no part of a handshake, IPv6 says 0.
    let end = version.choose(swap(words[0] >> 16), ipv6::Header::LEN + swap(words[1]));
    if fragment != 0 {
        return None;
    }
    let no_options = (own ^ Ipv4Hdr::LEN as u32) & version.v4;
    if next ^ u32::from(ipv6::TCP) | no_options == 0 {
        // A first fragment may end inside the TCP header; a real one has room for it.
        if end < length + TcpHdr::LEN as u32 {
            return None;
        }
        let mut tcp = [0; 4];
        for (index, word) in tcp.iter_mut().enumerate() {
            *word = version.choose(words[BEHIND_V4 + index], words[BEHIND_V6 + index]);
        }
        return Some(tcp);
    }
    let offset = if version.v4 != 0 {
        if next != u32::from(ipv6::TCP) || own < Ipv4Hdr::LEN as u32 {
            return None;
        }
        own
    } else {
        if !ipv6::is_extension(next as u8) {
            return None;
        }
        // What lies behind the end of the linear data is not this packet's.
        let tail: u32 = read(skb, &fields::SK_BUFF_TAIL)?;
        tcp_behind(start, next, tail.wrapping_sub(network))
    };
    if offset == 0 || end < offset + TcpHdr::LEN as u32 {
        return None;
    }
    read_at(start.wrapping_add(u64::from(offset)))
}

/// Source and destination. `None` for a packet of IPv6 with a mapped address: the kernel discards it, and here it would
/// be taken for IPv4.
#[inline(always)]
fn addresses(words: &Words, version: Version) -> Option<(Addr, Addr)> {
    let mapped = Addr::v4_word(0).0;
    let address = |v4: usize, v6: usize| {
        let mut out = [0; 4];
        for (index, word) in out.iter_mut().enumerate() {
            let short = if index == 3 { words[v4] } else { mapped[index] };
            *word = version.choose(short, words[v6 + index]);
        }
        Addr(out)
    };
    let (saddr, daddr) = (address(3, 2), address(4, 6));
    let is_mapped = |Addr([first, second, third, _]): Addr| first | second | (third ^ mapped[2]) | version.v4;
    if is_mapped(saddr) == 0 || is_mapped(daddr) == 0 {
        return None;
    }
    Some((saddr, daddr))
}

/// The bits of IPv4's flags and fragment offset that are the offset.
const FRAGMENT_OFFSET: u32 = 0x1fff;

/// The header's length that IPv4 gives, in bytes.
#[inline(always)]
fn ihl(words: &Words) -> u32 {
    (words[0] & 0xf) * 4
}

/// The 16 low bits, from network byte order.
#[inline(always)]
fn swap(bits: u32) -> u32 {
    u32::from(u16::from_be(bits as u16))
}

/// Protocol and destination of the outer header of a packet inside a tunnel, and where the inner one begins.
#[inline(always)]
fn outer(words: &Words) -> Option<(u8, u32, u32)> {
    let protocol = (words[2] >> 8) as u8;
    if words[0] >> 4 & 0xf != 4 || swap(words[1] >> 16) & FRAGMENT_OFFSET != 0 {
        return None;
    }
    // The ports of UDP stand where those of TCP do; not behind IP options, which no tunnel has.
    let port = swap(words[BEHIND_V4] >> 16) as u16;
    let inner = tunnel::inner(protocol, ihl(words), port)?;
    Some((protocol, words[4], inner))
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
