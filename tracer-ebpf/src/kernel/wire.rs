//! The two places where a packet meets a device.

use aya_ebpf::programs::RawTracePointContext;
use tracer_common::hook::Hook;

use super::{conntrack, emit, flow, packet::parse_through_tunnels, skipped};

/// `net:netif_receive_skb(skb)`: a packet came in from a device. The only place where an ACK is looked at.
#[inline(always)]
pub(super) fn received(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let packet = parse_through_tunnels(ctx.arg(0))?;
    // A connection begins, and is finished, where the packet comes out of the tunnel.
    let flow = if packet.is_encapsulated() {
        flow::of(&packet)?
    } else {
        flow::of_arrival(&packet)?
    };
    emit::packet(hook, &packet, &flow);
    skipped::tell(hook, &packet, &flow)
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
    skipped::tell(hook, &packet, &flow)
}
