//! The headers of the packet in an `sk_buff`.

use core::hint::black_box;

use network_types::{ip::Ipv4Hdr, tcp::TcpHdr};
use tracer_common::{
    ipv6, tcp, tunnel,
    tuple::{Addr, Tuple},
};

use super::fields::{self, read, read_at};

/// The members of a TCP packet's headers that tracer uses.
pub(super) struct Packet {
    pub(super) skb: u64,
    pub(super) tuple: Tuple,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    /// TTL of IPv4, hop limit of IPv6; inside a tunnel, that of the inner header.
    pub(super) ttl: u8,
    /// For a packet inside a tunnel, the IP protocol of the outer header; otherwise 0.
    pub(super) encapsulation: u8,
    /// For a packet inside a tunnel, the destination of the outer header, an IPv4 address in network byte order; otherwise
    /// 0.
    pub(super) outer_daddr: u32,
}

impl Packet {
    /// A packet known from a socket or a conntrack entry.
    #[inline(always)]
    pub(super) fn without_skb(tuple: Tuple, seq: u32, flags: u8) -> Self {
        Self {
            skb: 0,
            tuple,
            seq,
            ack: 0,
            flags,
            ttl: 0,
            encapsulation: 0,
            outer_daddr: 0,
        }
    }

    /// Whether the packet is inside a tunnel. If so, all of the `sk_buff` except these headers is about the outer packet.
    #[inline(always)]
    pub(super) fn is_encapsulated(&self) -> bool {
        self.encapsulation != 0
    }
}

/// The first words of a packet from its IP header on, as they are in memory: enough for both headers if IP has neither
/// options nor extensions. It is safe to read past a shorter packet: `struct skb_shared_info` follows the data.
type Words = [u32; 15];

/// The words of a TCP header that are used: ports, sequence number, acknowledgement number, flags.
type TcpWords = [u32; 4];

/// Index of the TCP header in [`Words`], after either IP header.
const AFTER_V4: usize = Ipv4Hdr::LEN / 4;
const AFTER_V6: usize = ipv6::Header::LEN as usize / 4;

/// The flags that are recorded.
const FLAGS: u32 = (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK) as u32;

/// Reads the headers of a TCP packet; `None` for anything else, and for a fragment that does not hold the whole TCP
/// header.
///
/// The TCP header is located by the length of the IP header: `transport_header` is not set yet when a packet arrives.
#[inline(always)]
pub(super) fn parse(skb: u64) -> Option<Packet> {
    parse_as::<false>(skb)
}

/// Like [`parse`], and looks into tunnels over IPv4 as well. For hooks where packets may be encapsulated already; a TCP
/// packet costs no more.
#[inline(always)]
pub(super) fn parse_through_tunnels(skb: u64) -> Option<Packet> {
    parse_as::<true>(skb)
}

/// The IP version of a packet, as a mask to select with: with a branch the verifier would walk through everything after it
/// twice, in each program.
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
        // Hides from the compiler that this has two values. Otherwise it would turn it into branches.
        let v4 = black_box((version >> 1 & 1).wrapping_sub(1));
        Some(Self { v4 })
    }

    #[inline(always)]
    fn select(self, v4: u32, v6: u32) -> u32 {
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
        ttl: version.select(words[2], words[1] >> 24) as u8,
        encapsulation,
        outer_daddr,
    })
}

/// Finds the TCP header; `None` if there is none, or only a part of it.
#[inline(always)]
fn tcp_header(skb: u64, start: u64, network: u32, words: &Words, version: Version) -> Option<TcpWords> {
    let own = ihl(words);
    // The protocol of IPv4, the next header of IPv6.
    let next = version.select(words[2] >> 8, words[1] >> 16) & 0xff;
    // The fragment offset. IPv6 has it in an extension header.
    let fragment = swap(words[1] >> 16) & FRAGMENT_OFFSET & version.v4;
    let length = version.select(own, ipv6::Header::LEN);
    // IPv6 has 0 for a jumbogram, which is never part of a handshake.
    let end = version.select(swap(words[0] >> 16), ipv6::Header::LEN + swap(words[1]));
    if fragment != 0 {
        return None;
    }
    let no_options = (own ^ Ipv4Hdr::LEN as u32) & version.v4;
    if next ^ u32::from(ipv6::TCP) | no_options == 0 {
        // A first fragment may end inside the TCP header; no real stack sends one.
        if end < length + TcpHdr::LEN as u32 {
            return None;
        }
        let mut tcp = [0; 4];
        for (index, word) in tcp.iter_mut().enumerate() {
            *word = version.select(words[AFTER_V4 + index], words[AFTER_V6 + index]);
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
        // The memory after the end of the linear data is not this packet's.
        let tail: u32 = read(skb, &fields::SK_BUFF_TAIL)?;
        tcp_after_extensions(start, next, tail.wrapping_sub(network))
    };
    if offset == 0 || end < offset + TcpHdr::LEN as u32 {
        return None;
    }
    read_at(start.wrapping_add(u64::from(offset)))
}

/// Source and destination. `None` for an IPv6 packet with a mapped address: the kernel drops it (`ip6_rcv_core`), and here
/// it would look like IPv4.
#[inline(always)]
fn addresses(words: &Words, version: Version) -> Option<(Addr, Addr)> {
    let mapped = Addr::v4_word(0).0;
    let address = |v4: usize, v6: usize| {
        let mut out = [0; 4];
        for (index, word) in out.iter_mut().enumerate() {
            let short = if index == 3 { words[v4] } else { mapped[index] };
            *word = version.select(short, words[v6 + index]);
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

/// The bits of the fragment offset in the IPv4 header's flags and fragment offset.
const FRAGMENT_OFFSET: u32 = 0x1fff;

/// Length of the IPv4 header, bytes.
#[inline(always)]
fn ihl(words: &Words) -> u32 {
    (words[0] & 0xf) * 4
}

/// The lower 16 bits, from network to host byte order.
#[inline(always)]
fn swap(bits: u32) -> u32 {
    u32::from(u16::from_be(bits as u16))
}

/// Protocol and destination of the outer header of a packet inside a tunnel, and the offset of the inner IP header.
#[inline(always)]
fn outer(words: &Words) -> Option<(u8, u32, u32)> {
    let protocol = (words[2] >> 8) as u8;
    if words[0] >> 4 & 0xf != 4 || swap(words[1] >> 16) & FRAGMENT_OFFSET != 0 {
        return None;
    }
    // UDP has its ports where TCP has them. Tunnels send no IP options.
    let port = swap(words[AFTER_V4] >> 16) as u16;
    let inner = tunnel::inner(protocol, ihl(words), port)?;
    Some((protocol, words[4], inner))
}

/// Offset of the TCP header after IPv6 extension headers, from the start of the IPv6 header; 0 if there is none within `room`
/// bytes. Rare, so it is a function of the object and not inlined into each program.
#[inline(never)]
fn tcp_after_extensions(start: u64, first: u32, room: u32) -> u32 {
    let mut next = first as u8;
    let mut offset = ipv6::Header::LEN;
    for _ in 0..ipv6::MAX_EXTENSIONS {
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
