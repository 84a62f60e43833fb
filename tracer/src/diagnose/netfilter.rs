//! Packets that a rule discarded or rejected.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    rule,
};
use crate::flow::model::Flow;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::NetfilterRuleRejected,
        says: "A rule rejected the packet, and told the client so.",
        proof: "The function by which a rule of iptables or nf_tables rejects was called with this packet. The rule is \
                the one that holds the target or the expression that it was called for, if it is still loaded.",
        advice: Some(
            "Look at the rule. kube-proxy writes one for a service that has no endpoint at all: look at its endpoints \
             and their readiness.",
        ),
        occurs: "Every kernel and dataplane with rules of iptables (legacy or nft) or nf_tables.",
        hooks: &[&[Hook::RejectTg, Hook::NftReject, Hook::NftRejectInet]],
        find: rejected,
    },
    Row {
        cause: Cause::NetfilterRuleDropped,
        says: "A rule, or the policy of a chain, dropped the packet.",
        proof: "nft_do_chain or ipt_do_table returned the verdict to drop for this packet, or nft_do_chain freed it, and not \
                for a chain that translates; or nf_queue freed it, so that a rule had queued it for a program and none took \
                it. The rule: of nf_tables, the one that holds the expression whose verdict that \
                was; where the kernel did not show it, and of iptables' legacy tables, the only one that the packet can \
                have met and been dropped by.",
        advice: Some(
            "Look at the rule, or at the policy: `nft -a list chain` with the family, table and chain given, or \
             `iptables -t TABLE -L CHAIN --line-numbers`. If it queues packets for a program, look whether that runs.",
        ),
        occurs: "Every kernel and dataplane with rules of iptables (legacy or nft) or nf_tables. tracer begins to look \
                 with the first packet that netfilter discards: of a client that sends its SYN only once it says so only \
                 where nf_tables frees what it drops itself (6.1.y, 6.7 and later), and names the rule only if no other \
                 can have been it; else it is unknown, with what can have.",
        hooks: &[&[Hook::NftDoChain, Hook::IptDoTable, Hook::KfreeSkb]],
        find: dropped,
    },
];

/// A rule rejected the SYN or its answer.
fn rejected(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Refused | Situation::Dropped) {
        return None;
    }
    let (step, blame) = rule::rejected(case)?;
    let packet = match step.event.part {
        Part::SynAck => "answer",
        _ => "SYN",
    };
    let mut evidence = blame.evidence;
    evidence.extend(told(case.flow));
    Some(Proof {
        explanation: format!(
            "The {packet} {} -> {} was rejected by {}.",
            step.event.tuple.source(),
            step.event.tuple.destination(),
            blame.words
        ),
        evidence,
    })
}

/// What went back to the client.
fn told(flow: &Flow) -> Option<Evidence> {
    let reset = || {
        flow.steps
            .iter()
            .find(|step| {
                step.event.part == Part::Rst
                    && step.event.hook == Hook::DevStartXmit
                    && step.event.tuple == flow.original.reversed()
            })
            .map(|step| Evidence::seen("RST sent to the client", evidence::place(step), step.event.hook))
    };
    evidence::icmp(flow).or_else(reset)
}

/// A base chain of nf_tables, or a table of iptables, returned the verdict to drop.
fn dropped(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let (step, blame) = rule::dropped(case)?;
    let mut evidence = blame.evidence;
    match step.verdict {
        Some(verdict) => evidence.push(Evidence::seen(
            "returned to netfilter",
            format!("{verdict:#x}"),
            step.event.hook,
        )),
        None => evidence.extend(evidence::discarded(step, case.facts)),
    }
    Some(Proof {
        explanation: format!(
            "The {} {} -> {} was dropped by {}.",
            case.discarded_packet(),
            step.event.tuple.source(),
            step.event.tuple.destination(),
            blame.words
        ),
        evidence,
    })
}
