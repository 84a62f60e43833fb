//! Which rule it was: what the kernel was seen to do, held against the rules that are loaded.
//!
//! A rule is named only if it is loaded and can have given the verdict that was seen; and, where the kernel did not
//! show the rule itself, only if no other can have. Else the table and the hook are all that is said.

pub(super) mod legacy;
pub(super) mod nft;
mod queue;
mod site;
mod suspects;

use tracer_common::record::{self, chain as seen};

pub(super) use self::suspects::known as suspects;
use super::{case::Case, evidence::Evidence};
use crate::{decode::event::Payload, flow::model::Step};

/// Rules, as the kernel hands them out.
pub(super) const NETLINK: &str = "nf_tables (netlink)";
/// Tables, as the kernel hands them out.
pub(super) const GETSOCKOPT: &str = "ip_tables (getsockopt)";

/// What ended a packet's way.
pub(super) struct Blame<'a> {
    /// It, in words that follow on "by".
    pub(super) words: String,
    /// What proves it.
    pub(super) evidence: Vec<Evidence>,
    /// The rule, if it is known.
    pub(super) rule: Option<Known<'a>>,
}

/// What a rule says of itself.
pub(super) struct Known<'a> {
    pub(super) table: &'a str,
    /// Its comment.
    pub(super) comment: Option<String>,
    /// The map in which it found its verdict.
    pub(super) map: Option<&'a str>,
    /// Does it ask whether conntrack found the packet INVALID?
    pub(super) matches_invalid: bool,
}

/// The table or base chain that dropped the packet, with the rule, and the step at which it did. `None` if it was seen
/// to be no rule and no policy.
pub(super) fn dropped<'a>(case: &Case<'a>) -> Option<(&'a Step, Blame<'a>)> {
    if let Some(found) = queue::nobody_took(case) {
        return Some(found);
    }
    let Some(step) = verdict(case) else {
        return suspects::freed(case);
    };
    let blame = match &step.event.payload {
        Payload::Chain(chain) => nft::dropped(case, chain)?,
        Payload::Table(table) => legacy::dropped(case, step, table)?,
        _ => return None,
    };
    Some((step, blame))
}

/// The step at which a table or a base chain was seen to give the verdict.
fn verdict<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let is_verdict = |step: &&Step| matches!(step.event.payload, Payload::Chain(_) | Payload::Table(_));
    case.steps()
        .rfind(|step| is_verdict(step) && case.flow.is_on_node(&step.event))
}

/// The rule that rejected the packet, and the step at which it did.
pub(super) fn rejected<'a>(case: &Case<'a>) -> Option<(&'a Step, Blame<'a>)> {
    let (step, reject) = case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Reject(reject) if case.flow.is_on_node(&step.event) => Some((step, reject)),
        _ => None,
    })?;
    let blame = if reject.table[0] == 0 {
        nft::rejected(case, step, reject)
    } else {
        legacy::rejected(case, step, reject)
    };
    Some((step, blame))
}

/// Was the last verdict that a rule was seen to give the one to drop?
fn said_drop(chain: &record::Chain) -> bool {
    const NF_VERDICT_MASK: u32 = 0xff;
    chain.seen & (seen::IMMEDIATE | seen::LOOKUP) != 0 && chain.code.cast_unsigned() & NF_VERDICT_MASK == 0
}

/// `enum nf_inet_hooks` (uapi/linux/netfilter.h).
fn hook_name(number: u32) -> &'static str {
    match number {
        0 => "prerouting",
        1 => "input",
        2 => "forward",
        3 => "output",
        4 => "postrouting",
        _ => "unknown",
    }
}

/// What the names of Calico's chains tell.
fn calico(chain: &str) -> Option<Evidence> {
    let says = |what: &str, name: &str| Evidence::read(what, name, "name of the chain");
    let rest = chain.strip_prefix("cali-")?;
    for (prefix, what) in [
        ("pi-", "Calico policy, inbound"),
        ("po-", "Calico policy, outbound"),
        ("pri-", "Calico profile, inbound"),
        ("pro-", "Calico profile, outbound"),
        ("tw-", "Calico's rules towards the workload at"),
        ("fw-", "Calico's rules from the workload at"),
        ("th-", "Calico's rules towards the host by"),
        ("fh-", "Calico's rules from the host by"),
    ] {
        if let Some(name) = rest.strip_prefix(prefix) {
            return Some(says(what, name));
        }
    }
    Some(says("written by Calico", chain))
}
