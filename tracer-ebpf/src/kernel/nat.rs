//! NAT by rules: who translated a new connection, and to what.
//!
//! A packet that is discarded between the translation and the moment when its connection goes into the table would
//! otherwise be lost from sight: it has another destination by then.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::hook::Hook;

use super::{
    call, conntrack,
    fields::{self, pointer, read},
    flow, packet,
};

/// `xt_dnat_target_v2(skb, par)` and its older kin: a rule of iptables, or of `iptables-nft`.
pub(super) mod by_target {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        begin(hook, ctx, ctx.arg(0)?)
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        translated(hook, ctx)
    }
}

/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`: the only hooks at which nf_tables translates a destination; at the
/// others the same function translates a source.
const PRE_ROUTING: u8 = 0;
const LOCAL_OUT: u8 = 3;

/// `nft_nat_eval(expr, regs, pkt)`: a rule of nf_tables.
pub(super) mod by_rule {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let info: u64 = ctx.arg(2)?;
        let state = pointer(info, &fields::NFT_PKTINFO_STATE)?;
        if !matches!(read(state, &fields::NF_HOOK_STATE_HOOK)?, PRE_ROUTING | LOCAL_OUT) {
            return None;
        }
        begin(hook, ctx, pointer(info, &fields::NFT_PKTINFO_SKB)?)
    }

    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        translated(hook, ctx)
    }
}

#[inline(always)]
fn begin(hook: Hook, ctx: &ProbeContext, skb: u64) -> Option<()> {
    let packet = packet::parse(skb)?;
    if !flow::is_request(&packet) {
        return None;
    }
    let flow = flow::of(&packet)?;
    call::enter(hook, ctx, &packet, &flow, (0, 0), |_| ());
    Some(())
}

#[inline(always)]
fn translated(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
    call::leave(hook, ctx, |call| {
        conntrack::tell_translated(hook, &call.header);
    })
}
