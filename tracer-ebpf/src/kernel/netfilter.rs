//! netfilter: the base chain that threw a packet away.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_common::{
    hook::Hook,
    record::{Chain, Header},
};

use super::{
    call::{self, Call},
    emit::emit,
    fields::{self, pointer, read, read_text},
    flow, packet,
};

const NF_DROP: u32 = 0;
const NF_STOLEN: u32 = 2;
const NF_VERDICT_MASK: u32 = 0xff;

/// `nft_do_chain(pkt, chain)` (chain since 4.4): one base chain and all that it jumps to.
pub(super) mod chain {
    use super::*;

    #[inline(always)]
    pub(crate) fn enter(hook: Hook, ctx: &ProbeContext) -> Option<()> {
        let info: u64 = ctx.arg(0)?;
        let packet = packet::parse_through_tunnels(pointer(info, &fields::NFT_PKTINFO_SKB)?)?;
        let flow = flow::of(&packet)?;
        let state = pointer(info, &fields::NFT_PKTINFO_STATE).unwrap_or(0);
        call::enter(hook, ctx, &packet, &flow, (ctx.arg(1)?, state), |_| ());
        Some(())
    }

    /// Only a chain that ended the packet's way is told: the others decided nothing.
    #[inline(always)]
    pub(crate) fn leave(hook: Hook, ctx: &RetProbeContext) -> Option<()> {
        call::leave(hook, ctx, |call| {
            if is_drop(call.header.verdict as u32) {
                emit(hook, |header, chain: &mut Chain| tell(call, header, chain));
            }
        })
    }

    #[inline(always)]
    fn tell(call: &Call, header: &mut Header, out: &mut Chain) {
        let (chain, state) = (call.first, call.second);
        *header = call.header;
        out.nf_hook = read::<u8>(state, &fields::NF_HOOK_STATE_HOOK).map_or(u32::MAX, u32::from);
        out.family = read::<u8>(state, &fields::NF_HOOK_STATE_PF).map_or(u32::MAX, u32::from);
        if let Some(name) = pointer(chain, &fields::NFT_CHAIN_NAME) {
            read_text(name, &mut out.chain);
        }
        if let Some(name) =
            pointer(chain, &fields::NFT_CHAIN_TABLE).and_then(|table| pointer(table, &fields::NFT_TABLE_NAME))
        {
            read_text(name, &mut out.table);
        }
        // Behind the routing decision the packet may have no device; the hook knows its namespace all the same.
        if header.netns == 0
            && let Some(net) = pointer(state, &fields::NF_HOOK_STATE_NET)
        {
            header.netns = read(net, &fields::NET_INUM).unwrap_or(0);
        }
    }
}

/// Newer kernels free the packet in the chain and return `NF_STOLEN` with an errno above it (`NF_DROP_REASON`).
#[inline(always)]
fn is_drop(verdict: u32) -> bool {
    let code = verdict & NF_VERDICT_MASK;
    code == NF_DROP || (code == NF_STOLEN && verdict >> 16 != 0)
}
