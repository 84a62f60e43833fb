//! Neighbours: packets that are queued until ARP/ND resolves their next hop.

use tracer_common::{
    hook::Hook,
    record::{Header, Neighbour},
    tuple::Addr,
    uapi,
};

use super::{
    call,
    emit::{self, emit},
    fields::{self, address, pointer, read, read_at},
    flow, packet,
};

/// Values of `neigh_table.family`.
const AF_INET: i32 = uapi::AF_INET as i32;
const AF_INET6: i32 = uapi::AF_INET6 as i32;

/// `__neigh_event_send(neigh, skb)` is called only while the neighbour is unresolved or unconfirmed. It returns 0 if the
/// packet can be sent; otherwise the packet is queued or was freed.
pub(super) mod send {
    use aya_ebpf::programs::{ProbeContext, RetProbeContext};

    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = packet::parse(ctx.arg(1)?)?;
        let flow = flow::of(&packet)?;
        call::enter(hook, ctx, &packet, &flow, (ctx.arg(0)?, 0), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if call.header.verdict != 0 {
                emit(hook, |header, out: &mut Neighbour| {
                    *header = call.header;
                    describe(call.kept.0, header, out);
                });
            }
        })
    }

    #[inline(always)]
    fn describe(neighbour: u64, header: &mut Header, out: &mut Neighbour) {
        if let Some(device) = pointer(neighbour, &fields::NEIGHBOUR_DEV) {
            emit::set_device(header, device);
        }
        out.state = read::<u8>(neighbour, &fields::NEIGHBOUR_STATE).map_or(u32::MAX, u32::from);
        let family = pointer(neighbour, &fields::NEIGHBOUR_TABLE)
            .and_then(|table| read(table, &fields::NEIGH_TABLE_FAMILY));
        let at = address(neighbour, &fields::NEIGHBOUR_ADDRESS);
        let next_hop = match (family, at) {
            (Some(AF_INET), Some(at)) => read_at(at).map(Addr::v4),
            (Some(AF_INET6), Some(at)) => read_at(at).map(Addr),
            _ => None,
        };
        out.address = next_hop.unwrap_or_default();
    }
}
