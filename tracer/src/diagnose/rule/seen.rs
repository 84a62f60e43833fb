//! The verdicts of tables and chains that were seen.

use tracer_common::{
    record::{self, chain as seen},
    uapi::verdict,
};

use crate::{decode::event::Payload, diagnose::case::Case, flow::model::Step};

/// The step at which a table or a base chain was seen to return the verdict.
pub(super) fn verdict<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let is_verdict = |step: &&Step| matches!(step.event.payload, Payload::Chain(_) | Payload::Table(_));
    case.steps()
        .rfind(|step| is_verdict(step) && case.flow.is_on_node(&step.event))
}

/// Whether the last verdict that a rule was seen to give drops the packet.
pub(super) fn is_drop_by_rule(chain: &record::Chain) -> bool {
    chain.seen & (seen::IMMEDIATE | seen::LOOKUP) != 0
        && chain.code & verdict::NF_VERDICT_MASK == verdict::NF_DROP
}
