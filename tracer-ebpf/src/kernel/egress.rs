//! Where a packet that is discarded was to leave by.

use tracer_common::{hook::Hook, record::Egress, tuple::Addr};

use super::{
    emit::{self, emit},
    fields::{self, pointer, read},
    flow::FlowRef,
    packet::Packet,
};

/// `AF_INET` in `rtable.rt_gw_family`.
const AF_INET: u8 = 2;

/// `sk_buff._skb_refdst` says in its lowest bit whether it holds a reference (`SKB_DST_NOREF`).
const REFDST_BITS: u64 = 1;

/// Tells next hop and queueing discipline of a packet that is discarded.
#[inline(always)]
pub(super) fn tell(hook: Hook, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, out: &mut Egress| {
        emit::describe(header, hook, packet, flow);
        // The route of an IPv6 packet is another struct.
        if packet.is_encapsulated() || !packet.tuple.is_v6() {
            out.gateway = gateway(packet.skb).unwrap_or_default();
        }
        if let Some(name) = qdisc(packet.skb) {
            out.qdisc = name;
        }
    });
}

#[inline(always)]
fn gateway(skb: u64) -> Option<Addr> {
    let route = read::<u64>(skb, &fields::SK_BUFF_DST)? & !REFDST_BITS;
    if route == 0 || read::<u8>(route, &fields::RTABLE_GW_FAMILY)? != AF_INET {
        return None;
    }
    Some(Addr::v4_word(read(route, &fields::RTABLE_GW4)?))
}

/// Name of the queueing discipline that the packet met: that of the device's first queue, if that is the packet's.
#[inline(always)]
fn qdisc(skb: u64) -> Option<[u8; 16]> {
    if read::<u16>(skb, &fields::SK_BUFF_QUEUE)? != 0 {
        return None;
    }
    let queue = pointer(pointer(skb, &fields::SK_BUFF_DEV)?, &fields::NET_DEVICE_TX)?;
    let qdisc = pointer(queue, &fields::NETDEV_QUEUE_QDISC)?;
    read(pointer(qdisc, &fields::QDISC_OPS)?, &fields::QDISC_OPS_ID)
}
