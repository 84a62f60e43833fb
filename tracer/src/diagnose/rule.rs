//! The rule that decided: what the kernel was seen to do, compared with the loaded rules.
//!
//! A rule is named only if it is loaded and could have given the verdict that was seen; and, where the kernel did not show the
//! rule itself, only if no other could have. Otherwise only the table and the hook are named.

mod culprit;
mod legacy;
mod marking;
mod nft;
mod queue;
mod seen;
mod site;
mod suspects;

use self::culprit::Culprit;
pub(super) use self::{culprit::Known, marking::of as marking, suspects::known as suspects};
use super::case::Case;
use crate::{decode::event::Payload, flow::model::Step};

/// The table or base chain that dropped the packet, with the rule, and the step at which it did. `None` if no rule and no
/// policy did.
pub(super) fn dropped<'a>(case: &Case<'a>) -> Option<(&'a Step, Culprit<'a>)> {
    // The verdict may be that of IPVS, whose hook was not attached.
    if case.may_hide_ipvs() {
        return None;
    }
    if let Some(found) = queue::unclaimed(case) {
        return Some(found);
    }
    let Some(step) = seen::verdict(case) else {
        return suspects::freed(case);
    };
    let culprit = match &step.event.payload {
        Payload::Chain(chain) => nft::dropped(case, chain)?,
        Payload::Table(table) => legacy::dropped(case, step, table)?,
        _ => return None,
    };
    Some((step, culprit))
}

/// The rule that rejected the packet, and the step at which it did.
pub(super) fn rejected<'a>(case: &Case<'a>) -> Option<(&'a Step, Culprit<'a>)> {
    let (step, reject) = case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Reject(reject) if case.flow.is_on_node(&step.event) => Some((step, reject)),
        _ => None,
    })?;
    let culprit = if reject.table[0] == 0 {
        nft::rejected(case, step, reject)
    } else {
        legacy::rejected(case, step, reject)
    };
    Some((step, culprit))
}
