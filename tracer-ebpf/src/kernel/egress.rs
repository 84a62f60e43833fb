//! Next hop and queueing discipline of a packet that is dropped.

use tracer_common::{hook::Hook, record::Egress};

use super::{
    emit::{self, emit},
    fields::{self, pointer, read},
    flow::FlowRef,
    packet::Packet,
    route,
};

/// Records next hop and queueing discipline of a packet that is dropped.
#[inline(always)]
pub(super) fn emit_egress(hook: Hook, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, out: &mut Egress| {
        emit::describe(header, hook, packet, flow);
        // The route is that of the outer packet, which is IPv4.
        let is_v6 = !packet.is_encapsulated() && packet.tuple.is_v6();
        if let Some(gateway) = route::of(packet.skb).and_then(|route| route::gateway(route, is_v6)) {
            out.gateway = gateway;
        }
        if let Some(name) = qdisc(packet.skb) {
            out.qdisc = name;
        }
    });
}

/// Name of the packet's queueing discipline: that of the device's first queue, if the packet is in that one.
#[inline(always)]
fn qdisc(skb: u64) -> Option<[u8; 16]> {
    if read::<u16>(skb, &fields::SK_BUFF_QUEUE)? != 0 {
        return None;
    }
    let queue = pointer(pointer(skb, &fields::SK_BUFF_DEV)?, &fields::NET_DEVICE_TX)?;
    let qdisc = pointer(queue, &fields::NETDEV_QUEUE_QDISC)?;
    read(pointer(qdisc, &fields::QDISC_OPS)?, &fields::QDISC_OPS_ID)
}
