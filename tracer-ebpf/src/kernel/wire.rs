//! The two hooks where a packet passes a device.

use aya_ebpf::programs::RawTracePointContext;
use tracer_common::{hook::Hook, record::Arrival, tcp};

use super::{
    conntrack,
    emit::{self, try_emit},
    flow, lost, netns,
    packet::parse_through_tunnels,
    skipped,
};

/// `net:netif_receive_skb(skb)`: a packet arrived from a device. The only hook that checks every ACK.
#[inline(always)]
pub(super) fn received(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let packet = parse_through_tunnels(ctx.arg(0))?;
    // A flow begins and finishes where the packet has left the tunnel.
    let flow = if packet.is_encapsulated() {
        flow::of(&packet)?
    } else {
        flow::of_arrival(hook, &packet)?
    };
    if !netns::is_recorded(hook, &packet, &flow) {
        lost::count(hook);
        return None;
    }
    let is_written = if packet.flags & tcp::SYN == 0 || packet.is_encapsulated() {
        try_emit(|header, (): &mut ()| emit::describe(header, hook, &packet, &flow))
    } else {
        try_emit(|header, arrival: &mut Arrival| {
            emit::describe(header, hook, &packet, &flow);
            arrival.ttl = u32::from(packet.ttl);
        })
    };
    // Each packet is either recorded here or counted once.
    if !is_written {
        lost::count(hook);
        return None;
    }
    skipped::emit_skipped(hook, &packet, &flow)
}

/// `net:net_dev_start_xmit(skb, dev)`: a packet is handed to a device.
#[inline(always)]
pub(super) fn transmitted(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let packet = parse_through_tunnels(ctx.arg(0))?;
    let flow = flow::of(&packet).or_else(|| conntrack::adopt(hook, &packet, ctx.arg(1)))?;
    emit::emit(hook, |header, (): &mut ()| {
        emit::describe(header, hook, &packet, &flow);
        emit::set_device(header, ctx.arg(1));
    });
    skipped::emit_skipped(hook, &packet, &flow)
}
