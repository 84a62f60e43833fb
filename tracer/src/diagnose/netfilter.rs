//! Packets that a rule dropped or rejected.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
    rule,
};
use crate::flow::model::Flow;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::NetfilterRuleRejected,
        group: Group::Rules,
        summary: "A firewall rule rejected the packet and notified the client.",
        proof: "The function with which iptables or nf_tables rejects packets was called with this packet. The rule is the one \
                whose target or expression it was called for, if it is still loaded.",
        advice: Some(
            "Check the rule. kube-proxy writes one for a service that has no endpoint at all: check its endpoints and their \
             readiness.",
        ),
        scope: "Every kernel and dataplane with iptables (legacy or nft) or nf_tables rules.",
        hooks: &[&[Hook::RejectTg, Hook::NftReject, Hook::NftRejectInet]],
        absence: Absence::Nothing,
        light: Light::Proves,
        detect: rejected,
    },
    Row {
        cause: Cause::NetfilterRuleDropped,
        group: Group::Rules,
        summary: "A firewall rule, or the policy of a chain, dropped the packet.",
        proof: "nft_do_chain or ipt_do_table returned a drop verdict for this packet, or nft_do_chain freed it, in a chain that \
                does no NAT; or nf_queue freed it: a rule had queued it for a program, and no program accepted it. In \
                nf_tables, the rule is the one whose expression gave the verdict; where the kernel did not show that, and in \
                the legacy iptables tables, the only rule that could have matched and dropped the packet.",
        advice: Some(
            "Find the rule, or the policy, with `nft -a list ruleset` or `iptables-save -c`. If a controller wrote it, change \
             the object it was made from; otherwise delete it. If the rule queues packets for a program, check that it runs.",
        ),
        scope: "Every kernel and dataplane with iptables (legacy or nft) or nf_tables rules. The hooks are attached when \
                netfilter drops the first packet. For a client that sends its SYN only once, the cause is detectable only where \
                nf_tables itself frees what it drops (6.1.y, 6.7 and later), and the rule is named only if no other could have \
                dropped it; elsewhere the cause is unknown, with the rules that could have.",
        hooks: &[&[Hook::NftDoChain, Hook::IptDoTable, Hook::KfreeSkb]],
        absence: Absence::Nothing,
        light: Light::Proves,
        detect: dropped,
    },
];

/// Proves that a rule rejected the SYN or its answer.
fn rejected(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Refused | Situation::Dropped) {
        return None;
    }
    let (step, culprit) = rule::rejected(case)?;
    let packet = match step.event.part {
        Part::SynAck => "SYN-ACK",
        _ => "SYN",
    };
    let explanation = format!(
        "The {packet} {} -> {} was rejected by {}.",
        step.event.tuple.source(),
        step.event.tuple.destination(),
        culprit.words
    );
    Some(Proof {
        blame: Some(culprit.blame),
        ..Proof::new(explanation, culprit.evidence.into_iter().chain(reply(case.flow)))
    })
}

/// The RST or ICMP error that the rule sent to the client.
fn reply(flow: &Flow) -> Option<Evidence> {
    let reset = || {
        flow.steps
            .iter()
            .find(|step| {
                step.event.part == Part::Rst
                    && step.event.hook == Hook::DevStartXmit
                    && step.event.tuple == flow.original.reversed()
            })
            .map(|step| Evidence::seen(Key::RstToClient, evidence::place(step), step.event.hook))
    };
    evidence::icmp(flow).or_else(reset)
}

/// Proves that an nf_tables base chain or an iptables table returned the verdict to drop.
fn dropped(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let (step, culprit) = rule::dropped(case)?;
    let mut evidence = culprit.evidence;
    match step.verdict {
        Some(verdict) => evidence.push(Evidence::seen(
            Key::ReturnedVerdict,
            format!("{verdict:#x}"),
            step.event.hook,
        )),
        None => evidence.extend(evidence::dropped(step, case.facts)),
    }
    let explanation = format!(
        "The {} {} -> {} was dropped by {}.",
        case.dropped_packet(),
        step.event.tuple.source(),
        step.event.tuple.destination(),
        culprit.words
    );
    Some(Proof {
        blame: Some(culprit.blame),
        ..Proof::new(explanation, evidence)
    })
}
