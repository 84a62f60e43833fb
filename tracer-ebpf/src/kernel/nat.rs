//! NAT by rules: the destination that was chosen, and a masquerade that found no source address.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::{hook::Hook, record::Conntrack, tcp::SYN, uapi::verdict::NF_DROP};

use super::{
    call, conntrack,
    emit::{self, emit},
    fields::{self, pointer, read},
    flow,
    packet::{self, Packet},
};

/// `NF_NAT_MANIP_DST` (`include/net/netfilter/nf_nat.h`, unchanged from 3.10 to 7.3).
const DESTINATION: u32 = 1;

/// `nf_nat_setup_info(ct, range, maniptype)` runs once for each new connection at prerouting (or output), whether a rule
/// translates the destination or not, and once at postrouting, which `__nf_conntrack_confirm` covers.
///
/// The arguments have no packet: the flow is the latest one with the entry's ORIGINAL tuple.
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
        let packet = Packet::without_skb(original, flow.isn, SYN);
        call::enter(hook, ctx, &packet, &flow, (ct, 0), |_| ());
        Some(())
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            let ct = call.kept.0;
            // Not from the record: before 5.18, ring buffer memory cannot be a map key.
            let flow = flow::known(&call.header.tuple, call.header.isn);
            if let Some(flow) = flow
                && let Some(reply) = conntrack::reply_of(ct)
            {
                conntrack::alias(hook, &call.header.tuple, &reply, &flow);
            }
            emit(hook, |header, out: &mut Conntrack| {
                *header = call.header;
                if let Some(net) = pointer(ct, &fields::NF_CONN_NET) {
                    header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
                }
                let _ = conntrack::read_entry(ct, out);
            });
        })
    }
}

/// `nf_nat_masquerade_ipv4(skb, hooknum, range, out)` (since 3.18) changes the source to an address of the device.
/// Recorded only if the device has none: nf_tables returns that verdict as if a rule had given it.
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
                    emit::set_device(header, call.kept.0);
                });
            }
        })
    }
}
