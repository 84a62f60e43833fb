//! NAT found no address or port for the SYN's source.

use tracer_common::{hook::Hook, record::conntrack, tcp::Part, uapi::verdict};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    conntrack::Insertion,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
};
use crate::{decode::event::Payload, flow::model::Step};

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::NatPortExhausted,
        group: Group::Conntrack,
        summary: "Masquerade found no free source port for the connection to its backend.",
        proof: "__nf_conntrack_confirm returned NF_DROP because another connection holds the reply tuple that NAT had chosen; \
                that connection has already been answered, so it held the tuple first. NAT chooses a tuple in use only if it \
                found no free one.",
        advice: Some(
            "All source ports that NAT may use on this node's address to that backend are taken, or at least 128 random \
             attempts found none: widen the rule's port range (--to-ports), spread the backend over more addresses or the \
             masquerading over more nodes, keep connections alive, or avoid masquerade (externalTrafficPolicy: Local).",
        ),
        scope: "Every kernel and dataplane that masquerades. Where the connection that holds the port has not been answered \
                yet, the cause is conntrack.insert-failed: that connection may have won a race.",
        hooks: &[&[Hook::CtConfirm], &[Hook::CtClash]],
        absence: Absence::Nothing,
        light: Light::Proves,
        detect: port_exhausted,
    },
    Row {
        cause: Cause::NatNoAddress,
        group: Group::Conntrack,
        summary: "Masquerade found no address on the output device of the connection.",
        proof: "nf_nat_masquerade_ipv4 returned NF_DROP for the SYN: it does so only when inet_select_addr finds no address \
                (the kernel logs that the device \"ate my IP address\").",
        advice: Some(
            "Add an address of global scope to the device, or to another device of the node. Addresses of scope link and host \
             do not count; in a VRF, only those of its devices count.",
        ),
        scope: "IPv4, every kernel and dataplane that masquerades. The hook is attached once netfilter has dropped a packet; \
                a later SYN shows the cause.",
        hooks: &[&[Hook::NatMasquerade]],
        absence: Absence::Nothing,
        light: Light::Hidden,
        detect: no_address,
    },
];

/// The rule that translated the destination of the SYN, or of an earlier one whose conntrack entry translates this one: the only
/// rule that leads from the NodePort to the backend, or the few that do.
pub(super) fn rule_of(case: &Case<'_>) -> Option<Evidence> {
    let flow = case.flow;
    let by_rule = |step: &&Step| {
        step.event.part == Part::Syn
            && (step.event.hook.is_iptables_dnat() || step.event.hook == Hook::NftNat)
            && step.attempt <= case.attempt
    };
    let translated = flow.steps.iter().rfind(by_rule)?.attempt;
    let backend = flow.backend_of(translated)?;
    if flow.backend_of(case.attempt).is_some_and(|own| own != backend) {
        return None;
    }
    let known = case.facts.nat_rules.get(&(flow.netns, flow.node(), backend))?;
    let names = || {
        known
            .rules
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let value = match known.rules.as_slice() {
        [] => return None,
        [only] => only.to_string(),
        _ => format!("one of: {}", names()),
    };
    let sent = flow.attempts.get(translated)?.time_ns;
    let when = if known.at_ns < sent { "before" } else { "after" };
    Some(Evidence::read(
        Key::NatRule,
        value,
        &format!(
            "rules of the node, {} ms {when} the SYN",
            known.at_ns.abs_diff(sent) / 1_000_000
        ),
    ))
}

fn port_exhausted(case: &Case<'_>) -> Option<Proof> {
    let failed = Insertion::failed(case)?;
    let (wanted, clash) = (failed.wanted, failed.clash?);
    let holder = &clash.holder;
    // NAT does not cause a clash in the original direction; and two SYNs of the same connection are a race.
    let chosen_by_nat = clash.direction == 1
        && clash.status & conntrack::SRC_NAT_DONE != 0
        && holder.reply == wanted.reply
        && holder.original != wanted.original;
    if !chosen_by_nat || holder.status & conntrack::SEEN_REPLY == 0 {
        return None;
    }
    let (to, from) = (wanted.reply.source(), wanted.reply.destination());
    Some(Proof::new(
        format!(
            "NAT found no free source port for this connection to {to}. It ended up with {from}, which the connection from {} \
             already uses, so conntrack could not insert the new one and dropped the SYN.",
            holder.original.source(),
        ),
        failed.evidence(),
    ))
}

fn no_address(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let step = case.steps().find(|step| {
        step.event.hook == Hook::NatMasquerade
            && step.event.payload == Payload::Packet
            && step.verdict.is_some_and(verdict::is_drop)
    })?;
    let device = step.event.dev.get().unwrap_or_else(|| "its device".to_owned());
    let mut evidence = vec![
        Evidence::seen(Key::Masquerade, "found no address (NF_DROP)", Hook::NatMasquerade),
        Evidence::seen(Key::OutputDevice, evidence::place(step), Hook::NatMasquerade),
    ];
    evidence.extend(
        case.dropped
            .into_iter()
            .flat_map(|step| evidence::dropped(step, case.facts)),
    );
    Some(Proof::new(
        format!(
            "The SYN was to be masqueraded on {device}, but the kernel found no address to use there and dropped it."
        ),
        evidence,
    ))
}
