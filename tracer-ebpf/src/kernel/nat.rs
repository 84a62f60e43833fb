//! NAT: what it could not find for a new connection.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::hook::Hook;

use super::{
    call, conntrack,
    emit::{self, emit},
    flow, packet,
};

const NF_DROP: i32 = 0;

/// `nf_nat_masquerade_ipv4(skb, hooknum, range, out)` (since 3.18): the source is to become an
/// address of the device. Told only if it has none: nf_tables returns that verdict as if a rule had given it.
pub(super) mod masquerade {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let packet = packet::parse(ctx.arg(0)?)?;
        if !flow::is_request(&packet) {
            return None;
        }
        let flow = conntrack::flow_of(&packet)?;
        call::enter(hook, ctx, &packet, &flow, (ctx.arg(3)?, 0), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if call.header.verdict == NF_DROP {
                emit(hook, |header, (): &mut ()| {
                    *header = call.header;
                    emit::set_device(header, call.first);
                });
            }
        })
    }
}
