//! conntrack found no connection for a packet, and a rule dropped it for that.

use tracer_common::{hook::Hook, tcp::Part};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{Evidence, Key},
        row::{Absence, Group, Row},
        rule,
    },
};

pub(in crate::diagnose) const ROWS: &[Row] = &[Row {
    cause: Cause::ConntrackInvalid,
    group: Group::Conntrack,
    summary: "conntrack marked the packet INVALID, and a rule that matches INVALID packets dropped it.",
    proof: "nf_conntrack_in let the packet pass without a connection (and not as exempt from tracking), which is what INVALID \
            means, and the rule that then dropped this very packet matches INVALID packets.",
    advice: Some(
        "Find out why conntrack has no connection for it: its entry was deleted or timed out (`conntrack -E -e DESTROY`), \
         the SYN took another path than the answer, or a checksum or sequence number is wrong \
         (net.netfilter.nf_conntrack_log_invalid=6 makes the kernel log which). net.netfilter.nf_conntrack_tcp_be_liberal=1 \
         helps only with sequence numbers.",
    ),
    scope: "Every kernel and dataplane. The hooks are attached once netfilter has dropped a packet; a later one shows the \
            cause. Where no rule drops it, an INVALID packet goes on untranslated: see return.not-translated.",
    hooks: &[&[Hook::CtIn], &[Hook::NftDoChain, Hook::IptDoTable]],
    absence: Absence::Nothing,
    detect: invalid,
}];

fn invalid(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let (dropped, culprit) = rule::dropped(case)?;
    if !culprit.known.as_ref()?.matches_invalid {
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
        Part::SynAck => "SYN-ACK",
        Part::Ack => "client's ACK",
        _ => "SYN",
    };
    let evidence = [Evidence::seen(
        Key::ConntrackState,
        "INVALID: no connection was found or created for it",
        Hook::CtIn,
    )];
    let explanation = format!(
        "conntrack had no connection for the {packet} {} -> {} (INVALID), so it was dropped by {}.",
        dropped.event.tuple.source(),
        dropped.event.tuple.destination(),
        culprit.words
    );
    Some(Proof {
        blame: Some(culprit.blame),
        ..Proof::new(explanation, evidence.into_iter().chain(culprit.evidence))
    })
}
