//! Who can have dropped a packet, where the verdict itself was not seen: tracer looks at rules only after the first
//! packet that one of them may have discarded.

use std::fmt;

use tracer_common::hook::Hook;

use super::{
    Blame, GETSOCKOPT, Known, NETLINK, hook_name, legacy,
    nft::{self, Reach},
    site::Site,
};
use crate::{
    decode::event::Payload,
    diagnose::{case::Case, evidence::Evidence},
    facts::{
        NetnsFacts,
        iptables::{Outcome, Packet, outcomes},
        nft::{Chain, Family, Policy, rule::Rule},
    },
    flow::model::Step,
};

const NF_DROP: i32 = 0;
const NF_VERDICT_MASK: i32 = 0xff;

/// So many are told of.
const TOLD: usize = 6;

/// One that can have dropped the packet.
pub(super) enum Suspect<'a> {
    /// A rule of nf_tables that drops.
    Rule(&'a Rule),
    /// A rule of nf_tables that asks a map, or does what tracer does not know.
    Perhaps(&'a Rule),
    /// The policy of a base chain of nf_tables.
    Policy(&'a Chain),
    /// A place in a legacy table of iptables.
    Legacy(&'a str, Outcome<'a>),
}

impl fmt::Display for Suspect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) | Self::Perhaps(rule) => {
                let Rule {
                    family,
                    table,
                    chain,
                    handle,
                    comment,
                    ..
                } = rule;
                write!(f, "rule with handle {handle} of {family} {table} {chain}")?;
                match comment {
                    Some(comment) => write!(f, " (\"{comment}\")"),
                    None => Ok(()),
                }
            }
            Self::Policy(chain) => {
                write!(f, "policy of {} {} {}", chain.family, chain.table, chain.name)
            }
            Self::Legacy(table, outcome) => {
                write!(f, "{} in the legacy table {table}", legacy::place(outcome))
            }
        }
    }
}

/// The chain of nf_tables that freed the packet itself: that it did proves that one of its rules or its policy dropped
/// it. `None` where a translation may have failed instead, or where a later SYN shows the rule.
pub(super) fn freed<'a>(case: &Case<'a>) -> Option<(&'a Step, Blame<'a>)> {
    let (step, site) = (case.discarded?, Site::of(case)?);
    if !site.is_chain || site.is_nat || case.again().any(|again| super::verdict(&again).is_some()) {
        return None;
    }
    let bases = case
        .netns()
        .map(|netns| bases(netns, &site, case))
        .unwrap_or_default();
    if site.family.is_none() && bases.iter().any(|base| is_nat(base)) {
        return None;
    }
    let suspects = case
        .netns()
        .map(|netns| of_chains(netns, &bases, &packet(case, step)))
        .unwrap_or_default();
    let nf_hook = site.nf_hook.map_or("unknown", hook_name);
    if let [Suspect::Rule(rule)] = suspects.as_slice() {
        let mut blame = nft::describe(rule, Hook::KfreeSkb, nf_hook, "drop".to_owned());
        blame.evidence.push(Evidence::read(
            "why this rule",
            "it is the only one that is loaded for this hook and can have dropped this packet",
            NETLINK,
        ));
        blame.rule = Some(Known {
            table: &rule.table,
            comment: rule.comment.clone(),
            map: None,
            matches_invalid: rule.matches_invalid,
        });
        return Some((step, blame));
    }
    let mut evidence = vec![Evidence::seen("netfilter hook", nf_hook, Hook::KfreeSkb)];
    let mut words = format!("a rule or a policy of nf_tables at the {nf_hook} hook; which one was not seen");
    match suspects.as_slice() {
        [] => {}
        [Suspect::Policy(base)] => {
            words = format!(
                "the policy of base chain {} in the nf_tables table {} {}, at the {nf_hook} hook: no rule there drops",
                base.name, base.family, base.table
            );
            evidence.extend([
                Evidence::read("table", format!("{} {}", base.family, base.table), NETLINK),
                Evidence::read("chain", &base.name, NETLINK),
                Evidence::read("policy of the chain", "drop", NETLINK),
            ]);
        }
        several => {
            if let Some(table) = common_table(several) {
                words = format!("{words}, but it is in the table {table}");
                evidence.push(Evidence::read("table", table, NETLINK));
            }
            evidence.push(Evidence::read(
                "rule",
                format!("one of: {}", list(several)),
                NETLINK,
            ));
        }
    }
    Some((
        step,
        Blame {
            words,
            evidence,
            rule: None,
        },
    ))
}

/// What is known of a packet that netfilter discarded, where it is not known on whose verdict: at which hook, by whom
/// it was not, and what is loaded that can have.
pub(in crate::diagnose) fn known(case: &Case<'_>) -> Vec<Evidence> {
    let Some((step, site)) = case.discarded.zip(Site::of(case)) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    if let Some(nf_hook) = site.nf_hook {
        out.push(Evidence::seen(
            "netfilter hook",
            hook_name(nf_hook),
            Hook::KfreeSkb,
        ));
    }
    let not_by = |hook: fn(Hook) -> bool| {
        let dropped = |step: &&Step| step.verdict.map(|verdict| verdict & NF_VERDICT_MASK) == Some(NF_DROP);
        let mut asked = case
            .steps()
            .filter(|step| hook(step.event.hook) && step.verdict.is_some());
        let first = asked.next()?;
        (!dropped(&first) && !asked.any(|step| dropped(&step))).then_some(first.event.hook)
    };
    for (who, hook) in [
        ("IPVS", not_by(Hook::is_ipvs_request)),
        (
            "conntrack, when it took the connection in",
            not_by(|hook| hook == Hook::CtConfirm),
        ),
    ] {
        out.extend(hook.map(|hook| Evidence::seen("not dropped by", who, hook)));
    }
    let able = loaded(case, step, &site);
    for source in [NETLINK, GETSOCKOPT] {
        let of_source = able.iter().filter(|(_, of)| *of == source);
        let list = list(of_source.map(|(suspect, _)| suspect));
        if !list.is_empty() {
            out.push(Evidence::read("can have dropped it", list, source));
        }
    }
    out
}

/// What is loaded and can have decided about the packet there, and from where that is known.
pub(super) fn loaded<'a>(case: &Case<'a>, step: &Step, site: &Site) -> Vec<(Suspect<'a>, &'static str)> {
    let Some(netns) = case.netns() else {
        return Vec::new();
    };
    let packet = packet(case, step);
    let chains = of_chains(netns, &bases(netns, site, case), &packet);
    let tables = site.nf_hook.map(|nf_hook| of_tables(netns, nf_hook, &packet));
    let chains = chains.into_iter().map(|suspect| (suspect, NETLINK));
    let tables = tables.unwrap_or_default().into_iter();
    chains
        .chain(tables.map(|suspect| (suspect, GETSOCKOPT)))
        .collect()
}

/// The base chains that the packet can have been in.
fn bases<'a>(netns: &'a NetnsFacts, site: &Site, case: &Case<'_>) -> Vec<&'a Chain> {
    let is_v6 = case.flow.original.is_v6();
    let fits = |chain: &&Chain| {
        let Some(base) = &chain.base else {
            return false;
        };
        let family = match site.family {
            Some(family) => chain.family == family && !is_nat(chain),
            None => nft::sees(chain.family, is_v6),
        };
        // The numbers of hooks are those of the family.
        let is_inet = matches!(chain.family, Family::Inet | Family::Ip | Family::Ip6);
        family && (!is_inet || site.nf_hook.is_none_or(|hook| base.hook == hook))
    };
    netns.chains.iter().filter(fits).collect()
}

fn is_nat(chain: &Chain) -> bool {
    chain.base.as_ref().is_some_and(|base| base.kind == "nat")
}

fn of_chains<'a>(netns: &'a NetnsFacts, bases: &[&'a Chain], packet: &Packet<'_>) -> Vec<Suspect<'a>> {
    let mut out = Vec::new();
    for base in bases {
        let reach = Reach::of(netns, base, |rule| rule.conditions.can_fit(packet));
        out.extend(reach.drops.into_iter().map(Suspect::Rule));
        out.extend(
            reach
                .asks_maps
                .into_iter()
                .chain(reach.others)
                .map(Suspect::Perhaps),
        );
        let policy = base.base.as_ref().and_then(|base| base.policy);
        out.extend((policy == Some(Policy::Drop)).then_some(Suspect::Policy(base)));
    }
    out
}

fn of_tables<'a>(netns: &'a NetnsFacts, nf_hook: u32, packet: &Packet<'_>) -> Vec<Suspect<'a>> {
    netns
        .tables
        .iter()
        .filter(|table| table.is_v6 == packet.destination.is_ipv6())
        .flat_map(|table| {
            let places = outcomes(table, nf_hook, packet);
            places
                .into_iter()
                .map(|outcome| Suspect::Legacy(&table.name, outcome))
        })
        .collect()
}

/// What is known of the packet that was discarded.
fn packet(case: &Case<'_>, step: &Step) -> Packet<'static> {
    let state = case.steps().rev().find_map(|other| match &other.event.payload {
        Payload::PacketState(state) if other.event.skb == step.event.skb => Some(state),
        _ => None,
    });
    // A packet without a connection may only not have come to conntrack yet.
    let ctinfo = state.filter(|state| state.ct != 0).map(|state| state.info);
    legacy::packet(step, None, ctinfo)
}

/// The table that all of them are in.
fn common_table(suspects: &[Suspect<'_>]) -> Option<String> {
    let table = |suspect: &Suspect<'_>| match suspect {
        Suspect::Rule(rule) | Suspect::Perhaps(rule) => Some(format!("{} {}", rule.family, rule.table)),
        Suspect::Policy(chain) => Some(format!("{} {}", chain.family, chain.table)),
        Suspect::Legacy(..) => None,
    };
    let first = table(suspects.first()?)?;
    suspects
        .iter()
        .all(|suspect| table(suspect).as_ref() == Some(&first))
        .then_some(first)
}

pub(super) fn list<'s, 'a: 's>(suspects: impl IntoIterator<Item = &'s Suspect<'a>>) -> String {
    let mut suspects = suspects.into_iter();
    let told: Vec<String> = suspects.by_ref().take(TOLD).map(ToString::to_string).collect();
    match suspects.count() {
        0 => told.join(", "),
        more => format!("{}, and {more} more", told.join(", ")),
    }
}
