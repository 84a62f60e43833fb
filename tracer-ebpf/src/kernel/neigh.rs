//! Neighbours: packets that wait until the hardware address of their next hop is known.

use tracer_common::{
    hook::Hook,
    record::{Header, Neighbour},
    tuple::Addr,
};

use super::{
    call,
    emit::{self, emit},
    fields::{self, address, pointer, read, read_at},
    flow, packet,
};

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// `__neigh_event_send(neigh, skb)`: called only while the hardware address is not known, or not known to be right.
/// What it returns is 0 if the packet may go, else it waits or was freed.
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
                    tell(call.first, header, out);
                });
            }
        })
    }

    #[inline(always)]
    fn tell(neighbour: u64, header: &mut Header, out: &mut Neighbour) {
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
