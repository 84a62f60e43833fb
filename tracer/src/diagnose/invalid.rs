//! conntrack did not know what to make of a packet, and a rule discarded it for that.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::Evidence,
    rule,
};
use crate::decode::event::Payload;

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::ConntrackInvalid,
    says: "conntrack found the packet INVALID, and a rule that asks for that dropped it.",
    proof: "nf_conntrack_in let the packet go on without a connection (and not as exempt from tracking), which is what \
            INVALID means, and the rule that then dropped this very packet asks for INVALID ones.",
    advice: Some(
        "Ask why conntrack knows nothing of it: its entry was deleted or timed out (`conntrack -E -e DESTROY`), the SYN took \
         another way than the answer, or a checksum or a sequence number is wrong \
         (net.netfilter.nf_conntrack_log_invalid=6 makes the kernel log which). net.netfilter.nf_conntrack_tcp_be_liberal=1 \
         helps only where sequence numbers are the reason.",
    ),
    occurs: "Every kernel and dataplane. The hooks are attached once netfilter has discarded a packet, so that a later one \
             shows it. Where no rule drops it, an INVALID packet goes on without being translated: see \
             return.not-translated.",
    hooks: &[&[Hook::CtIn], &[Hook::NftDoChain, Hook::IptDoTable]],
    find: invalid,
}];

fn invalid(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let (dropped, blame) = rule::dropped(case)?;
    if !blame.rule.as_ref()?.matches_invalid {
        return None;
    }
    case.steps().find(|step| {
        step.event.hook == Hook::CtIn
            && step.event.payload == Payload::Packet
            && (step.event.skb, step.event.part) == (dropped.event.skb, dropped.event.part)
            && case.flow.is_on_node(&step.event)
            && step.event.time_ns <= dropped.event.time_ns
    })?;
    let packet = match dropped.event.part {
        Part::SynAck => "answer",
        Part::Ack => "client's ACK",
        _ => "SYN",
    };
    let mut evidence = vec![Evidence::seen(
        "state for conntrack",
        "INVALID: no connection was found or made for it",
        Hook::CtIn,
    )];
    evidence.extend(blame.evidence);
    Some(Proof {
        explanation: format!(
            "conntrack knew no connection for the {packet} {} -> {} (INVALID), so it was dropped by {}.",
            dropped.event.tuple.source(),
            dropped.event.tuple.destination(),
            blame.words
        ),
        evidence,
    })
}
