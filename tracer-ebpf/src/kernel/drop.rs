//! Packets that the kernel drops, and the ICMP errors that it sends about them.

use aya_ebpf::{
    Global,
    programs::{ProbeContext, RawTracePointContext},
};
use tracer_common::{
    hook::Hook,
    record::{Drop, Icmp, TcpHeader, TooBig},
};

use super::{
    conntrack, egress,
    emit::{self, emit},
    fields::{self, read, read_bytes},
    flow::{self, FlowRef},
    packet::{self, Packet},
    route, stack,
};

/// Types and codes of ICMP errors (RFC 792, RFC 4443).
const ICMP_UNREACHABLE: u32 = 3;
const ICMP_FRAGMENTATION_NEEDED: u32 = 4;
const ICMPV6_TOO_BIG: u32 = 2;

/// 1 if the tracepoint has a third argument, the drop reason (5.17, and 5.15.85); set by the loader. A program that reads
/// an argument that does not exist cannot be attached.
#[unsafe(no_mangle)]
static HAVE_DROP_REASON: Global<u32> = Global::new(0);

/// `skb:kfree_skb(skb, location, reason)`.
#[inline(always)]
pub(super) fn freed(hook: Hook, ctx: &RawTracePointContext) -> Option<()> {
    let packet = packet::parse_through_tunnels(ctx.arg(0))?;
    let flow = conntrack::flow_of(&packet).or_else(|| flow::of_ack(&packet))?;
    egress::emit_egress(hook, &packet, &flow);
    // The conntrack entry of a tunnel packet is not the flow's.
    if !packet.is_encapsulated() {
        let _ = conntrack::emit_state(hook, &packet, &flow);
        route::emit_mark(hook, &packet, &flow);
    }
    stack::emit_stack(hook, ctx, &packet, &flow);
    let reason = if HAVE_DROP_REASON.load() == 0 {
        emit_tcp_header(hook, &packet, &flow);
        u32::MAX
    } else {
        ctx.arg::<u64>(2) as u32
    };
    emit(hook, |header, drop: &mut Drop| {
        emit::describe(header, hook, &packet, &flow);
        drop.location = ctx.arg(1);
        drop.reason = reason;
    });
    Some(())
}

/// Records the TCP header of a packet that is not in a tunnel. Once TCP looks at a packet, `transport_header` is set.
#[inline(always)]
fn emit_tcp_header(hook: Hook, packet: &Packet, flow: &FlowRef) {
    if packet.is_encapsulated() {
        return;
    }
    if let Some(head) = read::<u64>(packet.skb, &fields::SK_BUFF_HEAD)
        && let Some(offset) = read::<u16>(packet.skb, &fields::SK_BUFF_TRANSPORT_HEADER)
    {
        emit(hook, |header, out: &mut TcpHeader| {
            emit::describe(header, hook, packet, flow);
            out.length = read(packet.skb, &fields::SK_BUFF_LEN).unwrap_or(0);
            read_bytes(head.wrapping_add(u64::from(offset)), &mut out.bytes);
        });
    }
}

/// `__icmp_send(skb, type, code, info, opt)` and `icmp6_send(skb, type, code, info, …)`: the kernel answers
/// `skb` with an ICMP error.
#[inline(always)]
pub(super) fn icmp_send(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse_through_tunnels(ctx.arg(0)?)?;
    let flow = conntrack::flow_of(&packet)?;
    let (icmp_type, code) = (ctx.arg::<u32>(1)?, ctx.arg::<u32>(2)?);
    if let Some(mtu) = too_big(&packet, icmp_type, code, ctx.arg::<u32>(3)?) {
        emit(hook, |header, out: &mut TooBig| {
            emit::describe(header, hook, &packet, &flow);
            out.mtu = mtu;
            out.length = read(packet.skb, &fields::SK_BUFF_LEN).unwrap_or(0);
        });
    }
    emit(hook, |header, icmp: &mut Icmp| {
        emit::describe(header, hook, &packet, &flow);
        icmp.icmp_type = icmp_type;
        icmp.code = code;
    });
    Some(())
}

/// The MTU that an ICMP error reports, if it reports one. The argument is in network byte order for IPv4, in host byte order
/// for IPv6.
#[inline(always)]
fn too_big(packet: &Packet, icmp_type: u32, code: u32, info: u32) -> Option<u32> {
    match (packet.tuple.is_v6(), icmp_type, code) {
        (false, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED) => Some(u32::from_be(info)),
        (true, ICMPV6_TOO_BIG, _) => Some(info),
        _ => None,
    }
}
