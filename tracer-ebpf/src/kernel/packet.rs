//! The packet in an `sk_buff`.

use network_types::{
    ip::{IpProto, Ipv4Hdr},
    tcp::TcpHdr,
};
use tracer_common::tuple::{Addr, Tuple};

use super::fields::{self, read, read_at};

/// What tracer needs of a TCP packet's headers.
pub(super) struct Packet {
    pub(super) skb: u64,
    pub(super) tuple: Tuple,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
}

/// The usual case: no IP options. One read brings both headers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Headers {
    ip: Ipv4Hdr,
    tcp: TcpHdr,
}

/// Reads the headers of an IPv4 TCP packet; `None` for anything else and for all but the first fragment.
///
/// The TCP header is found through the IP header's length: `transport_header` is not set yet where packets come in.
#[inline(always)]
pub(super) fn parse(skb: u64) -> Option<Packet> {
    let head: u64 = read(skb, &fields::SK_BUFF_HEAD)?;
    let network: u16 = read(skb, &fields::SK_BUFF_NETWORK_HEADER)?;
    let start = head.wrapping_add(u64::from(network));
    let Headers { ip, mut tcp } = read_at(start)?;
    if ip.version() != 4 || !matches!(ip.proto(), Ok(IpProto::Tcp)) || ip.frag_offset() != 0 {
        return None;
    }
    let length = ip.ihl();
    if usize::from(length) != Ipv4Hdr::LEN {
        tcp = read_at(start.wrapping_add(u64::from(length)))?;
    }
    let flags = (tcp.fin() as u8) | (tcp.syn() as u8) << 1 | (tcp.rst() as u8) << 2 | (tcp.ack() as u8) << 4;
    Some(Packet {
        skb,
        tuple: Tuple {
            saddr: Addr::v4(ip.src_addr),
            daddr: Addr::v4(ip.dst_addr),
            sport: u16::from_be_bytes(tcp.source),
            dport: u16::from_be_bytes(tcp.dest),
        },
        seq: u32::from_be_bytes(tcp.seq),
        ack: u32::from_be_bytes(tcp.ack_seq),
        flags,
    })
}
