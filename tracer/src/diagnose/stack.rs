//! Who had called whom when a packet was discarded.

use super::{
    case::Case,
    evidence::{Evidence, function},
};
use crate::{decode::event::Payload, facts::Facts, flow::model::Step};

use tracer_common::{hook::Hook, record::Stack};

/// So many callers are told of.
const TOLD: usize = 6;

/// The stack of the packet that was discarded, as places in functions (`ip_forward+0x3b`): the one that freed it
/// first, then its callers. Empty if it is not known.
pub(super) fn of<'a>(case: &Case<'a>) -> Vec<&'a str> {
    let Some((stack, location)) = case.discarded.and_then(|step| found(case, step)) else {
        return Vec::new();
    };
    let frames = stack.frames.iter().copied();
    frames
        .skip_while(|&frame| frame != location)
        .take_while(|&frame| frame != 0)
        .map_while(|frame| case.facts.symbol(frame))
        .collect()
}

fn found<'a>(case: &Case<'a>, discarded: &Step) -> Option<(&'a Stack, u64)> {
    let Payload::Drop(drop) = &discarded.event.payload else {
        return None;
    };
    let stack = case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Stack(stack)
            if step.event.skb == discarded.event.skb && step.event.time_ns <= discarded.event.time_ns =>
        {
            Some(&**stack)
        }
        _ => None,
    });
    Some((stack?, drop.location))
}

/// The callers, as evidence.
pub(super) fn evidence(case: &Case<'_>) -> Option<Evidence> {
    let stack = of(case);
    let callers = stack.get(1..).filter(|callers| !callers.is_empty())?;
    let callers: Vec<&str> = callers.iter().copied().take(TOLD).collect();
    Some(Evidence::seen("called by", callers.join(" < "), Hook::KfreeSkb))
}

/// The functions of a stack for people, without those that only told of it.
#[must_use]
pub fn note(stack: &Stack, facts: &Facts) -> String {
    let names: Vec<&str> = stack
        .frames
        .iter()
        .filter_map(|&frame| facts.symbol(frame))
        .map(function)
        .collect();
    let freed = names
        .iter()
        .rposition(|name| frees(name))
        .map_or(0, |last| last + 1);
    match names.get(freed..) {
        Some(callers) if !callers.is_empty() => {
            let callers: Vec<&str> = callers.iter().copied().take(TOLD).collect();
            format!("called: {}", callers.join(" < "))
        }
        _ => "who called is not known".to_owned(),
    }
}

/// Functions that free whatever they are given.
fn frees(name: &str) -> bool {
    name.starts_with("kfree_skb") || name.starts_with("__kfree_skb") || name == "sk_skb_reason_drop"
}
