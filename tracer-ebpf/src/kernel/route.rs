//! Routing: the decision about a packet, and the settings with which it was refused.

use aya_ebpf::programs::ProbeContext;
use tracer_common::{
    hook::Hook,
    record::{Header, Mark, Route, route},
    tuple::Addr,
    uapi::AF_INET,
};

use super::{
    emit::{self, emit},
    fields::{self, pointer, read},
    flow::{self, FlowRef},
    packet::{self, Packet},
};

/// An unknown netfilter hook.
const NO_HOOK: u32 = u32::MAX;

/// Flags of an IPv6 route (uapi/linux/ipv6_route.h, uapi/linux/route.h).
const RTF_LOCAL: u32 = 0x8000_0000;
const RTF_GATEWAY: u32 = 2;

/// The lowest bit of `sk_buff._skb_refdst` is set if the packet holds no reference to the route (`SKB_DST_NOREF`, since
/// 2.6.36).
const REFERENCE_BIT: u64 = 1;

/// `ip_handle_martian_source(dev, in_dev, skb, daddr, saddr)`: the source address was refused, by the reverse path filter or
/// as invalid. Called for these two reasons only.
#[inline(always)]
pub(super) fn martian(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(2)?)?;
    let flow = flow::of(&packet)?;
    emit_mark(hook, &packet, &flow);
    emit(hook, |header, out: &mut Route| {
        emit::describe(header, hook, &packet, &flow);
        out.nf_hook = NO_HOOK;
        read_settings(packet.skb, out);
    });
    Some(())
}

/// `ip_error(skb)`: the input function of a packet that has no route.
#[inline(always)]
pub(super) fn error(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(0)?)?;
    let flow = flow::of(&packet)?;
    emit_mark(hook, &packet, &flow);
    emit(hook, |header, out: &mut Route| {
        emit::describe(header, hook, &packet, &flow);
        out.nf_hook = NO_HOOK;
        read_settings(packet.skb, out);
        if let Some(error) = of(packet.skb).and_then(|dst| read::<i16>(dst, &fields::DST_ERROR)) {
            out.error = i32::from(error);
            out.have |= route::ERROR;
        }
    });
    Some(())
}

/// Records the packet's mark, before the record of what happened to the packet.
#[inline(always)]
pub(super) fn emit_mark(hook: Hook, packet: &Packet, flow: &FlowRef) {
    if let Some(mark) = read(packet.skb, &fields::SK_BUFF_MARK) {
        emit(hook, |header, out: &mut Mark| {
            emit::describe(header, hook, packet, flow);
            out.mark = mark;
        });
    }
}

/// Records the mark of a listener's answer to the packet of a call.
#[inline(always)]
pub(super) fn emit_answer_mark(hook: Hook, of_call: &Header, sock: u64) {
    if let Some(mark) = answer_mark(of_call.skb, sock) {
        emit(hook, |header, out: &mut Mark| {
            *header = *of_call;
            // The return of the call belongs to the other record.
            header.call = 0;
            out.mark = mark;
        });
    }
}

/// `inet_request_mark(sk, skb)` (include/net/inet_sock.h, 4.4 to 7.3): the mark of the listener or, if it has none and
/// `net.ipv4.tcp_fwmark_accept` is on, that of the SYN.
#[inline(always)]
fn answer_mark(skb: u64, sock: u64) -> Option<u32> {
    let own: u32 = read(sock, &fields::SOCK_MARK)?;
    if own != 0 {
        return Some(own);
    }
    let of_syn: u32 = read(skb, &fields::SK_BUFF_MARK)?;
    if of_syn == 0 {
        return Some(0);
    }
    let accept: u8 = read(pointer(sock, &fields::SOCK_NET)?, &fields::NET_FWMARK_ACCEPT)?;
    Some(if accept == 0 { 0 } else { of_syn })
}

/// Records the packet's route at a hook whose other record is about something else.
#[inline(always)]
pub(super) fn emit_decision(hook: Hook, of_call: &Header, nf_hook: Option<u8>) {
    emit(hook, |header, out: &mut Route| {
        *header = *of_call;
        // The return of the call belongs to the other record.
        header.call = 0;
        read_decision(of_call.skb, of_call.tuple.is_v6(), nf_hook, out);
    });
}

/// Reads the packet's route.
#[inline(always)]
pub(super) fn read_decision(skb: u64, is_v6: bool, nf_hook: Option<u8>, out: &mut Route) {
    out.nf_hook = nf_hook.map_or(NO_HOOK, u32::from);
    let Some(dst) = of(skb) else {
        return;
    };
    if let Some(device) = pointer(dst, &fields::DST_DEV)
        && let Some(index) = read(device, &fields::NET_DEVICE_IFINDEX)
        && let Some(name) = read(device, &fields::NET_DEVICE_NAME)
    {
        out.out_ifindex = index;
        out.out_dev = name;
        out.have |= route::OUT;
    }
    if let Some(kind) = kind(dst, is_v6) {
        out.kind = kind;
        out.have |= route::KIND;
    }
    if let Some(gateway) = gateway(dst, is_v6) {
        out.gateway = gateway;
    }
}

/// The type of a route: a `struct rtable`, or a `struct rt6_info`, whose flags have it.
#[inline(always)]
fn kind(dst: u64, is_v6: bool) -> Option<u32> {
    if !is_v6 {
        return read::<u16>(dst, &fields::RTABLE_TYPE).map(u32::from);
    }
    let flags: u32 = read(dst, &fields::RT6_INFO_FLAGS)?;
    Some(if flags & RTF_LOCAL == 0 {
        route::UNICAST
    } else {
        route::LOCAL
    })
}

/// The gateway of a route; `None` if the destination is on the link.
#[inline(always)]
pub(super) fn gateway(dst: u64, is_v6: bool) -> Option<Addr> {
    if is_v6 {
        let flags: u32 = read(dst, &fields::RT6_INFO_FLAGS)?;
        if flags & RTF_GATEWAY == 0 {
            return None;
        }
        return read(dst, &fields::RT6_INFO_GATEWAY).map(Addr);
    }
    if read::<u8>(dst, &fields::RTABLE_GW_FAMILY)? != AF_INET {
        return None;
    }
    read(dst, &fields::RTABLE_GW4).map(Addr::v4_word)
}

/// The route attached to the packet.
#[inline(always)]
pub(super) fn of(skb: u64) -> Option<u64> {
    let tagged: u64 = read(skb, &fields::SK_BUFF_DST)?;
    Some(tagged & !REFERENCE_BIT).filter(|&dst| dst != 0)
}

/// Reads the settings of the device that the packet arrived on, and those of all devices.
#[inline(always)]
fn read_settings(skb: u64, out: &mut Route) {
    let Some(device) = pointer(skb, &fields::SK_BUFF_DEV) else {
        return;
    };
    let mut accept_local = (None::<i32>, None::<i32>);
    if let Some(own) = pointer(device, &fields::NET_DEVICE_IN_DEVICE) {
        if let Some(value) = read(own, &fields::IN_DEVICE_FORWARDING) {
            out.forwarding = value;
            out.have |= route::FORWARDING;
        }
        if let Some(value) = read(own, &fields::IN_DEVICE_RP_FILTER) {
            out.rp_filter = value;
            out.have |= route::RP_FILTER;
        }
        accept_local.0 = read(own, &fields::IN_DEVICE_ACCEPT_LOCAL);
    }
    if let Some(all) =
        pointer(device, &fields::NET_DEVICE_NET).and_then(|net| pointer(net, &fields::NET_DEVCONF_ALL))
    {
        if let Some(value) = read(all, &fields::DEVCONF_FORWARDING) {
            out.forwarding_all = value;
            out.have |= route::FORWARDING_ALL;
        }
        if let Some(value) = read(all, &fields::DEVCONF_RP_FILTER) {
            out.rp_filter_all = value;
            out.have |= route::RP_FILTER_ALL;
        }
        accept_local.1 = read(all, &fields::DEVCONF_ACCEPT_LOCAL);
    }
    if let (Some(own), Some(all)) = accept_local {
        out.accept_local = u32::from(own != 0 || all != 0);
        out.have |= route::ACCEPT_LOCAL;
    }
}
