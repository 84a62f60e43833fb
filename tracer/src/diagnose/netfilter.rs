//! Packets that a rule discarded or rejected.

use tracer_common::{hook::Hook, record::Chain};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::Evidence,
};
use crate::{
    flow::{
        event::{What, text},
        model::Flow,
    },
    node::{facts::Facts, nft},
};

const UNKNOWN_NUMBER: u32 = u32::MAX;

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::NetfilterRuleDropped,
    says: "A rule, or the policy of a chain, dropped the packet.",
    proof: "nft_do_chain returned the verdict to drop for this packet.",
    advice: Some("Look at the chain: `nft -a list chain` with the family, table and name given."),
    occurs: "Every kernel and dataplane with nf_tables.",
    hooks: &[&[Hook::NftDoChain]],
    find: by_rule,
}];

/// A base chain of nf_tables returned the verdict to drop.
fn by_rule(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let (flow, facts) = (case.flow, case.facts);
    let (step, chain) = case.steps().rev().find_map(|step| match &step.event.what {
        What::Chain(chain) if flow.is_on_node(&step.event) => Some((step, chain)),
        _ => None,
    })?;
    let (table, name) = chain_name(flow, chain, facts)?;
    let packet = case.discarded_packet();
    let hook = nf_hook_name(chain.nf_hook).unwrap_or("an unknown");
    Some(Proof {
        explanation: format!(
            "The {packet} {} -> {} was discarded by nf_tables: table {table}, base chain {name} at the {hook} hook, or a chain \
             that it jumps to.",
            step.event.tuple.source(),
            step.event.tuple.destination(),
        ),
        evidence: vec![
            Evidence::seen("table", table, Hook::NftDoChain),
            Evidence::seen("chain", name, Hook::NftDoChain),
            Evidence::seen("netfilter hook", hook, Hook::NftDoChain),
            Evidence::seen(
                "verdict of the chain",
                step.verdict
                    .map_or_else(String::new, |verdict| format!("{verdict:#x}")),
                Hook::NftDoChain,
            ),
        ],
    })
}

/// Table and chain, where what was read agrees with the rules that are loaded.
///
/// On a kernel without BTF for nf_tables only the chain's name is read, at an offset that nothing vouches for: it
/// counts if a base chain of that name is loaded at that hook, and its table if only one table has such a chain.
fn chain_name(flow: &Flow, chain: &Chain, facts: &Facts) -> Option<(String, String)> {
    let name = text(&chain.chain);
    let table = text(&chain.table);
    if !table.is_empty() && !name.is_empty() {
        return Some((table, name));
    }
    let loaded = &facts.netns.get(&flow.netns)?.chains;
    let mut tables = loaded
        .iter()
        .filter(|known| known.name == name && is_base_at(known, chain.nf_hook));
    let table = tables.next()?;
    if tables.next().is_some() {
        return None;
    }
    Some((table.table.clone(), name))
}

fn is_base_at(known: &nft::Chain, nf_hook: u32) -> bool {
    known
        .base
        .as_ref()
        .is_some_and(|base| base.hook == nf_hook || nf_hook == UNKNOWN_NUMBER)
}

/// `enum nf_inet_hooks` (uapi/linux/netfilter.h).
fn nf_hook_name(number: u32) -> Option<&'static str> {
    Some(match number {
        0 => "prerouting",
        1 => "input",
        2 => "forward",
        3 => "output",
        4 => "postrouting",
        _ => return None,
    })
}
