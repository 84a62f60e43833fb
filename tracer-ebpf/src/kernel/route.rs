//! Routing: what was decided about a packet, and with which settings it was refused.

use aya_ebpf::programs::ProbeContext;
use tracer_common::{
    hook::Hook,
    record::{Header, Route, route},
    tuple::Addr,
};

use super::{
    emit::{self, emit},
    fields::{self, pointer, read},
    flow, packet,
};

/// Where the number of a netfilter hook is not known.
const NO_HOOK: u32 = u32::MAX;

const AF_INET: u8 = 2;

/// Flags of an IPv6 route (uapi/linux/ipv6_route.h, uapi/linux/route.h).
const RTF_LOCAL: u32 = 0x8000_0000;
const RTF_GATEWAY: u32 = 2;

/// `sk_buff._skb_refdst` says in its lowest bit whether the packet holds the route (`SKB_DST_NOREF`, since 2.6.36).
const REFERENCE_BIT: u64 = 1;

/// `ip_handle_martian_source(dev, in_dev, skb, daddr, saddr)`: the source address was refused, by the reverse path
/// filter or as one that cannot be. Called for both, and for nothing else.
#[inline(always)]
pub(super) fn martian(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(2)?)?;
    let flow = flow::of(&packet)?;
    emit(hook, |header, out: &mut Route| {
        emit::describe(header, hook, &packet, &flow);
        out.nf_hook = NO_HOOK;
        read_settings(packet.skb, out);
    });
    Some(())
}

/// `ip_error(skb)`: where a packet goes for which there is no way.
#[inline(always)]
pub(super) fn error(hook: Hook, ctx: &ProbeContext) -> Option<()> {
    let packet = packet::parse(ctx.arg(0)?)?;
    let flow = flow::of(&packet)?;
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

/// Writes a record about the route that the packet carries at a hook that is there for something else.
#[inline(always)]
pub(super) fn tell_decision(hook: Hook, front: &Header, nf_hook: Option<u8>) {
    emit(hook, |header, out: &mut Route| {
        *header = *front;
        // The return of the call completes the other record of this hook.
        header.call = 0;
        read_decision(front.skb, front.tuple.is_v6(), nf_hook, out);
    });
}

/// What was decided about where the packet goes.
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
    if is_v6 {
        read_v6(dst, out);
    } else {
        read_v4(dst, out);
    }
}

/// `struct rtable`
#[inline(always)]
fn read_v4(dst: u64, out: &mut Route) {
    if let Some(kind) = read::<u16>(dst, &fields::RTABLE_TYPE) {
        out.kind = u32::from(kind);
        out.have |= route::KIND;
    }
    if read(dst, &fields::RTABLE_GATEWAY_FAMILY) == Some(AF_INET)
        && let Some(gateway) = read(dst, &fields::RTABLE_GATEWAY)
    {
        out.gateway = Addr::v4(gateway);
    }
}

/// `struct rt6_info`
#[inline(always)]
fn read_v6(dst: u64, out: &mut Route) {
    let Some(flags) = read::<u32>(dst, &fields::RT6_INFO_FLAGS) else {
        return;
    };
    out.kind = if flags & RTF_LOCAL == 0 {
        route::UNICAST
    } else {
        route::LOCAL
    };
    out.have |= route::KIND;
    if flags & RTF_GATEWAY != 0
        && let Some(gateway) = read(dst, &fields::RT6_INFO_GATEWAY)
    {
        out.gateway = Addr(gateway);
    }
}

/// The route that the packet carries.
#[inline(always)]
fn of(skb: u64) -> Option<u64> {
    let tagged: u64 = read(skb, &fields::SK_BUFF_DST)?;
    Some(tagged & !REFERENCE_BIT).filter(|&dst| dst != 0)
}

/// What is set for the device by which the packet came in, and for all devices.
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
