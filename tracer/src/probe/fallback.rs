//! Offsets for kernels that give no BTF for modules (before 5.11). None of them is taken on trust.

use tracer_common::field;

use super::{modules::Modules, offsets::Offsets};

/// Fills in what can be had otherwise.
pub fn complete(offsets: &mut Offsets, modules: &Modules) {
    let _ = modules;
    if !offsets.has_module("nf_tables") && offsets.get(&field::NFT_CHAIN_NAME).is_err() {
        propose_nf_tables(offsets);
    }
}

/// Two offsets of nf_tables that their own use proves. `nft_pktinfo.skb`: what is read there must be the headers of
/// a packet that is followed, sequence number and all, or nothing is told. `nft_chain.name`: what is read there
/// counts only if a base chain of that name is loaded at that hook (`diagnose::lost`). The values are those of 5.10,
/// from include/net/netfilter/nf_tables.h.
fn propose_nf_tables(offsets: &mut Offsets) {
    offsets.set(&field::NFT_PKTINFO_SKB, Ok(0));
    offsets.set(&field::NFT_PKTINFO_STATE, Ok(32));
    offsets.set(&field::NFT_CHAIN_NAME, Ok(88));
}
