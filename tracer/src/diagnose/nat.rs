//! NAT found nothing that the SYN's source could be translated to.

use tracer_common::{hook::Hook, record::conntrack};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    conntrack::Insertion,
    evidence::{self, Evidence},
};
use crate::decode::event::Payload;

const NF_DROP: i32 = 0;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::NatPortExhausted,
        says: "Masquerade found no free source port for the connection towards its backend.",
        proof: "__nf_conntrack_confirm returned NF_DROP because the tuple that NAT had chosen for the answer is held by \
                another connection, which has already been answered and so held it before: NAT chooses such a tuple \
                only when it has found no free one.",
        advice: Some(
            "All source ports that NAT may use on this node's address towards that backend are taken, or 128 and more \
             random tries found none: widen the range of the rule (--to-ports), spread the backend over more addresses \
             or the masquerading over more nodes, keep connections alive, or do without masquerade \
             (externalTrafficPolicy: Local).",
        ),
        occurs: "Every kernel and dataplane that masquerades. Where the connection that holds the port has not been answered \
                 yet it is told as conntrack.insert-failed, for it may as well have won a race.",
        hooks: &[&[Hook::CtConfirm], &[Hook::CtClash]],
        find: port_exhausted,
    },
    Row {
        cause: Cause::NatNoAddress,
        says: "Masquerade found no address of the device that the connection leaves by.",
        proof: "nf_nat_masquerade_ipv4 returned NF_DROP for the SYN: it does so only when inet_select_addr finds no address \
                (the kernel's log says that the device \"ate my IP address\").",
        advice: Some(
            "Give the device an address of global scope, or the node one that it may use there; addresses of scope link \
             and host do not count, and in a VRF only those of its devices do.",
        ),
        occurs: "IPv4, every kernel and dataplane that masquerades. The hook is attached once netfilter has discarded a \
                 packet, so that a later SYN shows it.",
        hooks: &[&[Hook::NatMasquerade]],
        find: no_address,
    },
];

fn port_exhausted(case: &Case<'_>) -> Option<Proof> {
    let failed = Insertion::failed(case)?;
    let (wanted, clash) = (failed.wanted, failed.clash?);
    let holder = &clash.holder;
    // Of a clash in the other direction NAT is innocent; and two SYNs of the same connection are a race.
    let chosen_by_nat = clash.direction == 1
        && clash.status & conntrack::SRC_NAT_DONE != 0
        && holder.reply == wanted.reply
        && holder.original != wanted.original;
    if !chosen_by_nat || holder.status & conntrack::SEEN_REPLY == 0 {
        return None;
    }
    let (to, from) = (wanted.reply.source(), wanted.reply.destination());
    Some(Proof {
        explanation: format!(
            "NAT found no free source port for this connection towards {to}: it ended at {from}, which the connection of {} \
             already uses, so conntrack could not take the new one in and the SYN was discarded.",
            holder.original.source(),
        ),
        evidence: failed.evidence(),
    })
}

fn no_address(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let step = case.steps().find(|step| {
        step.event.hook == Hook::NatMasquerade
            && step.event.payload == Payload::Packet
            && step.verdict == Some(NF_DROP)
    })?;
    let device = step.event.dev.get().unwrap_or_else(|| "its device".to_owned());
    let mut evidence = vec![
        Evidence::seen("masquerade", "found no address (NF_DROP)", Hook::NatMasquerade),
        Evidence::seen(
            "device that the SYN was to leave by",
            evidence::place(step),
            Hook::NatMasquerade,
        ),
    ];
    evidence.extend(
        case.discarded
            .into_iter()
            .flat_map(|step| evidence::discarded(step, case.facts)),
    );
    Some(Proof {
        explanation: format!(
            "The SYN was to be masqueraded on its way out through {device}, but the kernel found no address to use there; \
             it was discarded."
        ),
        evidence,
    })
}
