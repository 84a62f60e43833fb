//! The rules that could have dropped a packet whose verdict was not seen: the hooks on rules are attached only after the first
//! packet that a rule may have dropped.

use std::fmt;

use tracer_common::{hook::Hook, uapi::verdict};

use super::{
    culprit::{Culprit, GETSOCKOPT, Known, NETLINK, hook_name},
    legacy,
    nft::{self, Reachable},
    seen,
    site::Site,
};
use crate::{
    decode::event::Payload,
    diagnose::{
        blame::{self, Blame},
        case::Case,
        evidence::{Evidence, Key},
    },
    facts::{
        NetnsFacts,
        iptables::{Outcome, Packet, outcomes},
        nft::{Chain, Family, Policy, rule::Rule},
    },
    flow::model::Step,
};

/// The most suspects listed.
const LISTED: usize = 6;

/// A rule or a policy that could have dropped the packet.
pub(super) enum Suspect<'a> {
    /// An nf_tables rule that drops.
    Rule(&'a Rule),
    /// An nf_tables rule that looks up its verdict in a map, or has an expression that tracer does not know.
    Possible(&'a Rule),
    /// The policy of an nf_tables base chain.
    Policy(&'a Chain),
    /// A place in a legacy iptables table.
    Legacy(&'a str, Outcome<'a>),
}

impl Suspect<'_> {
    /// Table, chain and rule.
    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::Rule(rule) | Self::Possible(rule) => nft::blame_of(rule),
            Self::Policy(chain) => nft::blame_of_policy(chain),
            Self::Legacy(table, outcome) => {
                let (chain, rule) = match outcome {
                    Outcome::Rule { chain, number, .. } | Outcome::Extension { chain, number, .. } => (
                        chain,
                        blame::Rule::Number {
                            number: *number,
                            handle: None,
                        },
                    ),
                    Outcome::Policy(chain) => (chain, blame::Rule::Policy),
                };
                Blame {
                    table: Some((*table).to_owned()),
                    chain: Some(chain.name.clone()),
                    rule: Some(rule),
                }
            }
        }
    }
}

impl fmt::Display for Suspect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) | Self::Possible(rule) => {
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

/// The nf_tables chain that freed the packet itself, which proves that one of its rules or its policy dropped it. `None` where
/// a translation may have failed instead, or where a later SYN shows the rule.
pub(super) fn freed<'a>(case: &Case<'a>) -> Option<(&'a Step, Culprit<'a>)> {
    let (step, site) = (case.dropped?, Site::of(case)?);
    if !site.is_chain || site.is_nat || case.later().any(|later| seen::verdict(&later).is_some()) {
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
        let mut culprit = nft::describe(rule, Hook::KfreeSkb, nf_hook, "drop".to_owned());
        culprit.evidence.push(Evidence::read(
            Key::RuleReason,
            "the only rule loaded at this hook that could have dropped this packet",
            NETLINK,
        ));
        culprit.known = Some(Known {
            table: &rule.table,
            comment: rule.comment.clone(),
            map: None,
            matches_invalid: rule.matches_invalid,
        });
        return Some((step, culprit));
    }
    let mut evidence = vec![Evidence::seen(Key::NetfilterHook, nf_hook, Hook::KfreeSkb)];
    let mut words = format!("an nf_tables rule or policy at the {nf_hook} hook; which one was not seen");
    let mut blame = Blame::default();
    match suspects.as_slice() {
        [] => {}
        [Suspect::Policy(base)] => {
            words = format!(
                "the policy of base chain {} in the nf_tables table {} {}, at the {nf_hook} hook: no rule there drops",
                base.name, base.family, base.table
            );
            evidence.extend([
                Evidence::read(Key::Table, format!("{} {}", base.family, base.table), NETLINK),
                Evidence::read(Key::Chain, &base.name, NETLINK),
                Evidence::read(Key::ChainPolicy, "drop", NETLINK),
            ]);
            blame = nft::blame_of_policy(base);
        }
        several => {
            if let Some(table) = common_table(several) {
                words = format!("{words}, but it is in the table {table}");
                evidence.push(Evidence::read(Key::Table, &table, NETLINK));
                blame.table = Some(table);
            }
            evidence.push(Evidence::read(
                Key::Rule,
                format!("one of: {}", list(several)),
                NETLINK,
            ));
        }
    }
    Some((
        step,
        Culprit {
            words,
            evidence,
            blame,
            known: None,
        },
    ))
}

/// The facts about a packet that netfilter dropped on an unknown verdict: the hook, what did not drop it, and the loaded rules
/// that could have.
pub(in crate::diagnose) fn known(case: &Case<'_>) -> Vec<Evidence> {
    let Some((step, site)) = case.dropped.zip(Site::of(case)) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    if let Some(nf_hook) = site.nf_hook {
        out.push(Evidence::seen(
            Key::NetfilterHook,
            hook_name(nf_hook),
            Hook::KfreeSkb,
        ));
    }
    let not_by = |hook: fn(Hook) -> bool| {
        let is_drop = |step: &&Step| step.verdict.is_some_and(verdict::is_drop);
        let mut calls = case
            .steps()
            .filter(|step| hook(step.event.hook) && step.verdict.is_some());
        let first = calls.next()?;
        (!is_drop(&first) && !calls.any(|step| is_drop(&step))).then_some(first.event.hook)
    };
    for (who, hook) in [
        ("IPVS", not_by(Hook::is_ipvs_request)),
        (
            "conntrack, on insertion of the connection",
            not_by(|hook| hook == Hook::CtConfirm),
        ),
    ] {
        out.extend(hook.map(|hook| Evidence::seen(Key::NotDroppedBy, who, hook)));
    }
    let able = loaded(case, step, &site);
    for source in [NETLINK, GETSOCKOPT] {
        let of_source = able.iter().filter(|(_, of)| *of == source);
        let list = list(of_source.map(|(suspect, _)| suspect));
        if !list.is_empty() {
            out.push(Evidence::read(Key::Suspects, list, source));
        }
    }
    out
}

/// The loaded rules and chains that could have decided about the packet there, each with its source.
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

/// The base chains that the packet could have been in.
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
        // Hook numbers depend on the family.
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
        let reachable = Reachable::for_packet(netns, base, |rule| rule.conditions.can_fit(packet));
        out.extend(reachable.drops.into_iter().map(Suspect::Rule));
        out.extend(
            reachable
                .lookups
                .into_iter()
                .chain(reachable.others)
                .map(Suspect::Possible),
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

/// The known properties of the dropped packet.
fn packet(case: &Case<'_>, step: &Step) -> Packet<'static> {
    let state = case.steps().rev().find_map(|other| match &other.event.payload {
        Payload::PacketState(state) if other.event.skb == step.event.skb => Some(state),
        _ => None,
    });
    // A packet without a connection may not have reached conntrack yet.
    let ctinfo = state.filter(|state| state.ct != 0).map(|state| state.info);
    legacy::packet(step, None, ctinfo)
}

/// The table that all of them are in.
fn common_table(suspects: &[Suspect<'_>]) -> Option<String> {
    let table = |suspect: &Suspect<'_>| match suspect {
        Suspect::Rule(rule) | Suspect::Possible(rule) => Some(format!("{} {}", rule.family, rule.table)),
        Suspect::Policy(chain) => Some(format!("{} {}", chain.family, chain.table)),
        Suspect::Legacy(..) => None,
    };
    let first = table(suspects.first()?)?;
    suspects
        .iter()
        .all(|suspect| table(suspect).as_ref() == Some(&first))
        .then_some(first)
}

/// Suspects in one line.
pub(super) fn list<'s, 'a: 's>(suspects: impl IntoIterator<Item = &'s Suspect<'a>>) -> String {
    let mut suspects = suspects.into_iter();
    let listed: Vec<String> = suspects.by_ref().take(LISTED).map(ToString::to_string).collect();
    match suspects.count() {
        0 => listed.join(", "),
        more => format!("{}, and {more} more", listed.join(", ")),
    }
}
