//! NAT by rules: where the destination is decided, and what was not found for the source.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::{
    hook::Hook,
    record::{Conntrack, Header},
};

use super::{
    call, conntrack,
    emit::{self, emit},
    fields::{self, pointer, read},
    flow,
    packet::{self, Packet},
};

const NF_DROP: i32 = 0;

/// `NF_NAT_MANIP_DST` (`include/net/netfilter/nf_nat.h`, unchanged from 3.10 to 7.3).
const DESTINATION: u32 = 1;

/// `nf_nat_setup_info(ct, range, maniptype)`: once for each new connection at prerouting (or output), whether a rule
/// translates the destination or not, and once at postrouting, which `__nf_conntrack_confirm` tells as well.
///
/// There is no packet among the arguments: the entry's tuple leads to the flow that began with it last.
pub(super) mod setup {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        if ctx.arg::<u32>(2)? != DESTINATION {
            return None;
        }
        let ct: u64 = ctx.arg(0)?;
        let original = conntrack::original_of(ct)?;
        let flow = flow::latest(&original)?;
        let packet = Packet::without_skb(original, flow.isn, tracer_common::tcp::SYN);
        call::enter(hook, ctx, &packet, &flow, (ct, 0), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            let ct = call.first;
            emit(hook, |header, out: &mut Conntrack| {
                *header = call.header;
                tell(ct, header, out);
            });
        })
    }

    #[inline(always)]
    fn tell(ct: u64, header: &mut Header, out: &mut Conntrack) {
        if let Some(net) = pointer(ct, &fields::NF_CONN_NET) {
            header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
        }
        let _ = conntrack::read_entry(ct, out);
        // On the stack: verifiers before 6.2 take no key that lies in a record.
        let tuple = header.tuple;
        if let Some(flow) = flow::known(&tuple, header.isn) {
            conntrack::alias(&out.original, &out.reply, &flow);
        }
    }
}

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
