//! Rules that mark a packet to be dropped later.

use super::{
    legacy,
    nft::{Reachable, sees},
};
use crate::{
    diagnose::case::Case,
    facts::{
        iptables::{Packet, jumps},
        nat_rule::NatRule,
        nft::rule::Decides,
    },
};

/// The chain in which kubelet, up to 1.27, marks packets to be dropped.
const MARK_DROP: &str = "KUBE-MARK-DROP";
/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`.
const TRANSLATING: [u32; 2] = [0, 3];

/// The rules that the SYN, as the client sent it, may have met and that send it to kubelet's chain of marked packets.
pub(in crate::diagnose) fn of(case: &Case<'_>) -> Vec<NatRule> {
    let first = case.steps().find(|step| step.event.tuple == case.flow.original);
    let (Some(step), Some(netns)) = (first, case.netns()) else {
        return Vec::new();
    };
    let packet: Packet<'_> = legacy::packet(step, None, None);
    let is_v6 = packet.source.is_ipv6();
    let mut out = Vec::new();
    let bases = netns.chains.iter().filter(|chain| {
        sees(chain.family, is_v6)
            && chain
                .base
                .as_ref()
                .is_some_and(|base| base.kind == "nat" && TRANSLATING.contains(&base.hook))
    });
    for base in bases {
        let reachable = Reachable::for_packet(netns, base, |rule| rule.conditions.can_fit(&packet));
        let marking = reachable.jumps.into_iter().filter(
            |rule| matches!(&rule.decides, Decides::Verdict(verdict) if verdict.chain() == Some(MARK_DROP)),
        );
        out.extend(marking.map(NatRule::from));
    }
    let tables = netns
        .tables
        .iter()
        .filter(|table| table.is_v6 == is_v6 && table.name == "nat");
    for table in tables {
        for hook in TRANSLATING {
            out.extend(
                jumps(table, hook, &packet, MARK_DROP)
                    .into_iter()
                    .map(|found| NatRule {
                        table: table.name.clone(),
                        chain: found.chain.name.clone(),
                        number: found.number,
                        handle: None,
                        comment: found.rule.comment(),
                    }),
            );
        }
    }
    // Both hooks lead through the same chains, so a rule may be found twice.
    out.dedup();
    out
}
