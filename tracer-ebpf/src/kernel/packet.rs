//! The packet in an `sk_buff`, and the two places where it meets a wire.

use aya_ebpf::programs::RawTracePointContext;
use network_types::{
    ip::{IpProto, Ipv4Hdr},
    tcp::TcpHdr,
};
use tracer_common::{
    hook::Hook,
    tuple::{Addr, Tuple},
};

use super::{
    emit,
    fields::{self, read, read_at},
    flow,
};

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
    // The flags byte lies behind both numbers and the data offset; network-types has them as single bits only.
    let flags = read_at::<u8>(start.wrapping_add(u64::from(length)).wrapping_add(13))?;
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

/// `net:netif_receive_skb(skb)`: a packet came in from a device. The only place where an ACK is looked at.
#[inline(always)]
pub(super) fn received(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let packet = parse(ctx.arg(0))?;
    let flow = flow::of_arrival(&packet)?;
    emit::packet(hook, &packet, &flow);
    Some(())
}

/// `net:net_dev_start_xmit(skb, dev)`: a packet is handed to a device.
#[inline(always)]
pub(super) fn transmitted(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let packet = parse(ctx.arg(0))?;
    let flow = flow::of(&packet)?;
    emit::emit(hook, |header, (): &mut ()| {
        emit::describe(header, hook, &packet, &flow);
        emit::set_device(header, ctx.arg(1));
    });
    Some(())
}
