//! Packets that this node discarded outside of IPVS: by a rule, or for a reason that nothing here explains.

use tracer_common::{hook::Hook, record::Chain, tcp::Part};

use super::{
    Finding,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::{
    flow::{
        event::{What, text},
        judge::{self, End},
        model::{Flow, Step},
    },
    node::{facts::Facts, nft},
};

const NF_DROP: i32 = 0;
const UNKNOWN_NUMBER: u32 = u32::MAX;

/// A base chain of nf_tables returned the verdict to drop.
pub(crate) fn by_rule(flow: &Flow, attempt: usize, facts: &Facts) -> Option<Finding> {
    let (step, chain) = flow
        .steps_of(attempt)
        .rev()
        .find_map(|step| match &step.event.what {
            What::Chain(chain) if flow.is_on_node(&step.event) => Some((step, chain)),
            _ => None,
        })?;
    let (table, name) = chain_name(flow, chain, facts)?;
    let (packet, cause) = match step.event.part {
        Part::Syn => ("SYN", Cause::NetfilterRuleDropped),
        _ => ("answer", Cause::ReturnDropped),
    };
    let hook = nf_hook_name(chain.nf_hook).unwrap_or("an unknown");
    Some(Finding {
        cause,
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

/// Nothing known explains it: function and reason are given.
pub(crate) fn unexplained(flow: &Flow, attempt: usize, facts: &Facts) -> Finding {
    let (evidence, place, packet) = match judge::end_of(flow, attempt) {
        End::Dropped(step) => {
            let packet = if step.event.part == Part::Syn {
                "SYN"
            } else {
                "answer"
            };
            (
                drop_evidence(step, facts),
                format!(" in {}", location(step, facts)),
                packet,
            )
        }
        End::Answered | End::Open => (Vec::new(), String::new(), "SYN"),
    };
    let refusals = flow.steps_of(attempt).filter(|step| {
        let hook = step.event.hook;
        step.verdict == Some(NF_DROP)
            && (hook.is_ipvs_request() || matches!(hook, Hook::CtConfirm | Hook::NftDoChain))
    });
    let mut evidence = evidence;
    evidence.extend(refusals.map(|step| Evidence::seen("verdict", "NF_DROP", step.event.hook)));
    Finding {
        cause: Cause::Unknown,
        explanation: format!(
            "This node discarded the {packet}{place}; nothing that tracer knows explains why."
        ),
        evidence,
    }
}

/// Function and reason of a discarded packet.
pub(crate) fn drop_evidence(step: &Step, facts: &Facts) -> Vec<Evidence> {
    let What::Drop(drop) = &step.event.what else {
        return Vec::new();
    };
    let mut out = vec![
        Evidence::seen("discarded in", location(step, facts), Hook::KfreeSkb),
        Evidence::seen("discarded at", evidence::place(step), Hook::KfreeSkb),
    ];
    if drop.reason != UNKNOWN_NUMBER {
        let name = facts
            .drop_reasons
            .get(&drop.reason)
            .cloned()
            .unwrap_or_else(|| drop.reason.to_string());
        out.push(Evidence::seen("drop reason", name, Hook::KfreeSkb));
    }
    out
}

fn location(step: &Step, facts: &Facts) -> String {
    match &step.event.what {
        What::Drop(drop) => facts
            .symbols
            .get(&drop.location)
            .cloned()
            .unwrap_or_else(|| format!("{:#x}", drop.location)),
        _ => step.event.hook.name().to_owned(),
    }
}
