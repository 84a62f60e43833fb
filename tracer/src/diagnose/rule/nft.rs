//! Rules in nf_tables, including those of `iptables-nft`.

mod reachable;

use tracer_common::{
    hook::Hook,
    record::{self, NftRule, chain as seen},
};

pub(super) use self::reachable::Reachable;
use self::reachable::is_in_table_of;
use super::{
    culprit::{Culprit, Known, NETLINK, calico, hook_name},
    seen::is_drop_by_rule,
};
use crate::{
    decode::event::{Payload, text},
    diagnose::{
        blame::{self, Blame},
        case::Case,
        evidence::{Evidence, Key},
    },
    facts::{
        NetnsFacts,
        nft::{
            Chain, Family, Policy,
            rule::{Decides, Rule, Verdict},
        },
    },
    flow::model::Step,
};

const UNKNOWN_NUMBER: u32 = u32::MAX;

/// The base chain that returned the verdict to drop, and the rule or the policy behind it. `None` where possibly neither was: the
/// expressions that translate addresses drop what they cannot translate.
pub(super) fn dropped<'a>(case: &Case<'a>, chain: &'a record::Chain) -> Option<Culprit<'a>> {
    let netns = case.netns();
    let bases = netns.map(|netns| bases(netns, chain)).unwrap_or_default();
    let by_lookup = chain.seen & seen::BY_LOOKUP != 0;
    if is_drop_by_rule(chain) {
        let found = netns.and_then(|netns| {
            find(netns, &chain.rule, |rule| {
                is_there(rule, &bases, chain) && rule.decides.drops(by_lookup)
            })
        });
        if let (Some(netns), Some(rule)) = (netns, found) {
            let hook = if by_lookup {
                Hook::NftLookup
            } else {
                Hook::NftImmediate
            };
            return Some(of_rule(netns, chain, rule, hook, "drop", case));
        }
        return Some(of_base(chain, &bases, &Missing::of(&chain.rule)));
    }
    // The rest of the chain is known only if exactly one loaded base chain fits the record.
    let [base] = bases.as_slice() else {
        return None;
    };
    let (netns, hooked) = (netns?, base.base.as_ref()?);
    // A rule with that verdict would have been seen, unless it is of a kind that has no hook.
    let rest = Reachable::from(netns, base);
    let sees = |hook| !case.facts.absent.contains(&hook);
    let seen_all = (rest.drops.is_empty() || sees(Hook::NftImmediate))
        && (rest.lookups.is_empty() || sees(Hook::NftLookup));
    if hooked.policy == Some(Policy::Drop) && seen_all && rest.others.is_empty() {
        return Some(of_policy(chain, base));
    }
    (hooked.kind != "nat").then(|| of_base(chain, &bases, &Missing::RuleOrPolicy))
}

/// The rule whose expression rejected the packet.
pub(super) fn rejected<'a>(case: &Case<'a>, step: &'a Step, reject: &'a record::Reject) -> Culprit<'a> {
    let netns = case.netns();
    // Its chain was seen too, if the hooks on chains were attached by then.
    let chain = case.steps().find_map(|other| match &other.event.payload {
        Payload::Chain(chain) if other.event.skb == step.event.skb => Some(chain),
        _ => None,
    });
    let found = netns.and_then(|netns| {
        let bases = chain.map(|chain| (chain, bases(netns, chain)));
        find(netns, &reject.rule, |rule| {
            let is_there = match &bases {
                Some((chain, bases)) => is_there(rule, bases, chain),
                None => is_met(netns, rule, reject.nf_hook, step.event.tuple.is_v6()),
            };
            is_there && rejects_by(rule, step.event.hook)
        })
    });
    let nf_hook = hook_name(reject.nf_hook);
    let Some(rule) = found else {
        let missing = Missing::of(&reject.rule);
        return Culprit {
            words: format!("an nf_tables rule at the {nf_hook} hook; {missing}"),
            evidence: vec![
                Evidence::seen(Key::NetfilterHook, nf_hook, step.event.hook),
                Evidence::seen(Key::Rule, missing.to_string(), step.event.hook),
            ],
            blame: Blame {
                rule: missing.blamed(),
                ..Blame::default()
            },
            known: None,
        };
    };
    let mut culprit = describe(rule, step.event.hook, nf_hook, "reject".to_owned());
    culprit.evidence.extend(gone(netns, rule));
    culprit.known = Some(Known {
        table: &rule.table,
        comment: rule.comment.clone(),
        map: None,
        matches_invalid: rule.matches_invalid,
    });
    culprit
}

/// Why the rule is not named.
enum Missing {
    /// The rule had this handle, and not exactly one loaded rule has it together with that verdict.
    Gone(u64),
    /// The rule was not seen.
    Rule,
    /// Neither a rule nor the policy was seen to decide.
    RuleOrPolicy,
}

impl Missing {
    fn of(rule: &NftRule) -> Self {
        match rule.handle {
            0 => Self::Rule,
            handle => Self::Gone(handle),
        }
    }

    const fn blamed(&self) -> Option<blame::Rule> {
        match self {
            Self::Gone(handle) => Some(blame::Rule::Handle(*handle)),
            Self::Rule | Self::RuleOrPolicy => None,
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone(handle) => write!(
                f,
                "the rule has handle {handle}, which matches no single loaded rule"
            ),
            Self::Rule => f.write_str("tracer did not see which rule"),
            Self::RuleOrPolicy => f.write_str("tracer did not see whether a rule or the policy dropped it"),
        }
    }
}

/// The loaded base chains that the record can be about. On kernels without BTF for nf_tables it has only the chain's name.
fn bases<'a>(netns: &'a NetnsFacts, chain: &record::Chain) -> Vec<&'a Chain> {
    let (table, name) = (text(&chain.table), text(&chain.chain));
    let is = |known: &&Chain| {
        is_name(&known.name, &name)
            && (table.is_empty() || is_name(&known.table, &table))
            && sees_packet(known.family, chain.family)
            && known
                .base
                .as_ref()
                .is_some_and(|base| base.hook == chain.nf_hook || chain.nf_hook == UNKNOWN_NUMBER)
    };
    netns.chains.iter().filter(is).collect()
}

/// Whether this is the name that was read, which may be truncated.
fn is_name(loaded: &str, read: &str) -> bool {
    const LONGEST: usize = 31;
    loaded == read || (read.len() == LONGEST && loaded.starts_with(read))
}

/// Whether a table of this family sees the packets of a hook's family.
fn sees_packet(table: Family, family: u32) -> bool {
    let family = u8::try_from(family).map(Family::from);
    match family {
        Ok(Family::Ip | Family::Ip6) => table == Family::Inet || Ok(table) == family,
        Ok(family) => table == family,
        Err(_) => true,
    }
}

/// Whether a table of this family sees IPv4 or IPv6 packets.
pub(super) fn sees(table: Family, is_v6: bool) -> bool {
    table == Family::Inet || table == if is_v6 { Family::Ip6 } else { Family::Ip }
}

/// Whether the rule is in the table of one of these base chains or, if none of them is loaded any more, in the table that
/// was read.
fn is_there(rule: &Rule, bases: &[&Chain], read: &record::Chain) -> bool {
    let table = text(&read.table);
    let was_there =
        || !table.is_empty() && is_name(&rule.table, &table) && sees_packet(rule.family, read.family);
    bases.iter().any(|base| is_in_table_of(rule, base)) || (bases.is_empty() && was_there())
}

/// Whether a packet can meet the rule at this hook. A deleted rule counts as met: the jumps to it are no longer known.
fn is_met(netns: &NetnsFacts, rule: &Rule, nf_hook: u32, is_v6: bool) -> bool {
    let mut bases = netns.chains.iter().filter(|chain| {
        let hook = chain.base.as_ref().map(|base| base.hook);
        is_in_table_of(rule, chain) && hook.is_some_and(|hook| hook == nf_hook || nf_hook == UNKNOWN_NUMBER)
    });
    let loaded = netns.rules.iter().any(|known| std::ptr::eq(known, rule));
    sees(rule.family, is_v6) && (!loaded || bases.any(|base| Reachable::from(netns, base).has(&rule.chain)))
}

/// Whether the kernel calls this function when the rule rejects.
fn rejects_by(rule: &Rule, hook: Hook) -> bool {
    match hook {
        Hook::RejectTg => matches!(&rule.decides, Decides::Extension(name) if name == "REJECT"),
        Hook::NftRejectInet => rule.decides == Decides::Reject && rule.family == Family::Inet,
        _ => rule.decides == Decides::Reject && rule.family != Family::Inet,
    }
}

/// A note if the rule was deleted.
fn gone(netns: Option<&NetnsFacts>, rule: &Rule) -> Option<Evidence> {
    let mut loaded = netns?.rules.iter();
    let is_gone = !loaded.any(|known| std::ptr::eq(known, rule));
    is_gone.then(|| Evidence::read(Key::RuleSince, "deleted, or replaced", NETLINK))
}

/// The only rule that `can_be` accepts and that has the handle that was read or, if none was read, precedes the rule with the
/// next handle. Rules that were deleted after a packet met them count too.
fn find<'a>(netns: &'a NetnsFacts, wanted: &NftRule, can_be: impl Fn(&Rule) -> bool) -> Option<&'a Rule> {
    let pairs = netns.rules.windows(2).filter_map(|pair| match pair {
        [rule, next] => Some((rule, next)),
        _ => None,
    });
    let before_next = pairs.filter(|(rule, next)| {
        wanted.next != 0
            && next.handle == wanted.next
            && rule.number.checked_add(1) == Some(next.number)
            && (rule.family, &rule.table, &rule.chain) == (next.family, &next.table, &next.chain)
    });
    let before_next = before_next.map(|(rule, _)| rule).filter(|rule| can_be(rule));
    if wanted.handle == 0 {
        return only(before_next);
    }
    let with_handle = || {
        let all = netns.rules.iter().chain(&netns.removed_rules);
        all.filter(|rule| rule.handle == wanted.handle && can_be(rule))
    };
    // Handles are unique only within a table: of several rules with this one, the rule before the next handle is meant.
    only(with_handle()).or_else(|| only(before_next.filter(|rule| rule.handle == wanted.handle)))
}

fn only<'a>(mut rules: impl Iterator<Item = &'a Rule>) -> Option<&'a Rule> {
    let first = rules.next();
    first.filter(|_| rules.next().is_none())
}

fn of_rule<'a>(
    netns: &'a NetnsFacts,
    chain: &record::Chain,
    rule: &'a Rule,
    hook: Hook,
    verdict: &str,
    case: &Case<'_>,
) -> Culprit<'a> {
    let map = match &rule.decides {
        Decides::Map(name) => Some(name.as_str()),
        _ => None,
    };
    let element = map.and_then(|name| {
        netns
            .maps
            .iter()
            .find(|map| (map.family, &map.table, map.name.as_str()) == (rule.family, &rule.table, name))
            .and_then(|map| map.of_tcp_port(case.flow.node().port()))
            .filter(|element| element.verdict == Verdict::Drop)
    });
    let verdict = match map {
        Some(map) => format!("{verdict}, found in map {map}"),
        None => verdict.to_owned(),
    };
    let mut culprit = describe(rule, hook, hook_name(chain.nf_hook), verdict);
    culprit.evidence.insert(
        1,
        Evidence::seen(Key::BaseChain, text(&chain.chain), Hook::NftDoChain),
    );
    let element = element.and_then(|element| element.comment.as_deref());
    culprit
        .evidence
        .extend(element.map(|comment| Evidence::read(Key::MapElementComment, comment, NETLINK)));
    culprit.evidence.extend(gone(Some(netns), rule));
    culprit.known = Some(Known {
        table: &rule.table,
        comment: rule.comment.clone(),
        map,
        matches_invalid: rule.matches_invalid,
    });
    culprit
}

/// A rule, with everything known about it.
pub(super) fn describe<'a>(rule: &Rule, hook: Hook, nf_hook: &str, verdict: String) -> Culprit<'a> {
    let Rule {
        family,
        table,
        chain,
        handle,
        number,
        comment,
        ..
    } = rule;
    let mut evidence = vec![
        Evidence::read(Key::Table, format!("{family} {table}"), NETLINK),
        Evidence::read(Key::Chain, chain, NETLINK),
        Evidence::seen(Key::NetfilterHook, nf_hook, hook),
        Evidence::seen(
            Key::Rule,
            format!("number {number} of its chain, handle {handle}"),
            hook,
        ),
        Evidence::seen(Key::Verdict, verdict, hook),
    ];
    evidence.extend(
        comment
            .as_ref()
            .map(|comment| Evidence::read(Key::RuleComment, comment, NETLINK)),
    );
    evidence.extend(calico(chain));
    let comment = comment
        .as_ref()
        .map_or_else(String::new, |comment| format!(", \"{comment}\""));
    Culprit {
        words: format!(
            "rule {number} (handle {handle}) of chain {chain} in the nf_tables table {family} {table}, at the {nf_hook} hook{comment}"
        ),
        evidence,
        blame: blame_of(rule),
        known: None,
    }
}

/// Table, chain and number of a rule.
pub(super) fn blame_of(rule: &Rule) -> Blame {
    Blame {
        table: Some(format!("{} {}", rule.family, rule.table)),
        chain: Some(rule.chain.clone()),
        rule: Some(blame::Rule::Number {
            number: rule.number,
            handle: Some(rule.handle),
        }),
    }
}

/// The policy of a base chain.
pub(super) fn blame_of_policy(chain: &Chain) -> Blame {
    Blame {
        table: Some(format!("{} {}", chain.family, chain.table)),
        chain: Some(chain.name.clone()),
        rule: Some(blame::Rule::Policy),
    }
}

fn of_policy<'a>(chain: &record::Chain, base: &Chain) -> Culprit<'a> {
    let nf_hook = hook_name(chain.nf_hook);
    let Chain {
        family, table, name, ..
    } = base;
    Culprit {
        words: format!(
            "the policy of base chain {name} in the nf_tables table {family} {table}, at the {nf_hook} hook: no rule decided"
        ),
        evidence: vec![
            Evidence::seen(Key::Table, format!("{family} {table}"), Hook::NftDoChain),
            Evidence::seen(Key::Chain, name, Hook::NftDoChain),
            Evidence::seen(Key::NetfilterHook, nf_hook, Hook::NftDoChain),
            Evidence::read(Key::ChainPolicy, "drop", NETLINK),
        ],
        blame: blame_of_policy(base),
        known: None,
    }
}

/// A base chain that dropped the packet, by an unknown rule or possibly by its policy.
fn of_base<'a>(chain: &record::Chain, bases: &[&Chain], missing: &Missing) -> Culprit<'a> {
    let nf_hook = hook_name(chain.nf_hook);
    let name = text(&chain.chain);
    let table = match (bases, text(&chain.table)) {
        ([base], _) => format!("{} {}", base.family, base.table),
        (_, table) => table,
    };
    let table = Some(table).filter(|table| !table.is_empty());
    let place = table
        .as_ref()
        .map_or_else(String::new, |table| format!(" in the nf_tables table {table}"));
    let table_evidence = table
        .clone()
        .map(|table| Evidence::seen(Key::Table, table, Hook::NftDoChain));
    Culprit {
        words: format!(
            "base chain {name}{place}, at the {nf_hook} hook, or a chain that it jumps to; {missing}"
        ),
        evidence: table_evidence
            .into_iter()
            .chain([
                Evidence::seen(Key::Chain, &name, Hook::NftDoChain),
                Evidence::seen(Key::NetfilterHook, nf_hook, Hook::NftDoChain),
                Evidence::seen(Key::Rule, missing.to_string(), Hook::NftDoChain),
            ])
            .collect(),
        blame: Blame {
            table,
            chain: Some(name),
            rule: missing.blamed(),
        },
        known: None,
    }
}
