//! The call stack of a drop.

use super::{
    case::Case,
    evidence::{Evidence, Key, function},
};
use crate::{decode::event::Payload, facts::Facts, flow::model::Step};

use tracer_common::{hook::Hook, record::Stack};

/// The most callers listed.
const LISTED: usize = 6;

/// The stack of the drop, as symbols with offsets (`ip_forward+0x3b`): the function that freed the packet first, then its
/// callers. Empty if it is not known.
pub(super) fn of<'a>(case: &Case<'a>) -> Vec<&'a str> {
    let Some((stack, location)) = case.dropped.and_then(|step| found(case, step)) else {
        return Vec::new();
    };
    let frames = stack.frames.iter().copied();
    frames
        .skip_while(|&frame| frame != location)
        .take_while(|&frame| frame != 0)
        .map_while(|frame| case.facts.symbol(frame))
        .collect()
}

fn found<'a>(case: &Case<'a>, dropped: &Step) -> Option<(&'a Stack, u64)> {
    let Payload::Drop(drop) = &dropped.event.payload else {
        return None;
    };
    let stack = case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Stack(stack)
            if step.event.skb == dropped.event.skb && step.event.time_ns <= dropped.event.time_ns =>
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
    let callers: Vec<&str> = callers.iter().copied().take(LISTED).collect();
    Some(Evidence::seen(Key::CalledBy, callers.join(" < "), Hook::KfreeSkb))
}

/// The functions of a stack in one line, without those that only free the packet.
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
            let callers: Vec<&str> = callers.iter().copied().take(LISTED).collect();
            format!("called by: {}", callers.join(" < "))
        }
        _ => "callers unknown".to_owned(),
    }
}

/// Functions that free whatever they are given.
fn frees(name: &str) -> bool {
    name.starts_with("kfree_skb") || name.starts_with("__kfree_skb") || name == "sk_skb_reason_drop"
}
