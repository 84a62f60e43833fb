//! Rules of nf_tables, those of `iptables-nft` among them.

mod reach;

use tracer_common::{
    hook::Hook,
    record::{self, NftRule, chain as seen},
};

pub(super) use self::reach::Reach;
use super::{Blame, Known, NETLINK, calico, hook_name, said_drop};
use crate::{
    decode::event::{Payload, text},
    diagnose::{case::Case, evidence::Evidence},
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

/// The base chain that returned the verdict to drop, and the rule or the policy behind it. `None` where neither may
/// have been: the expressions that translate addresses discard what they cannot translate.
pub(super) fn dropped<'a>(case: &Case<'a>, chain: &'a record::Chain) -> Option<Blame<'a>> {
    let netns = case.netns();
    let bases = netns.map(|netns| bases(netns, chain)).unwrap_or_default();
    let by_lookup = chain.seen & seen::BY_LOOKUP != 0;
    if said_drop(chain) {
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
    // Only a chain that can be told from all others tells what else there is in it.
    let [base] = bases.as_slice() else {
        return None;
    };
    let (netns, hooked) = (netns?, base.base.as_ref()?);
    // A rule that had said so would have been seen, unless it is of a kind that is not looked at.
    let rest = Reach::from(netns, base);
    let sees = |hook| !case.facts.absent.contains(&hook);
    let seen_all = (rest.drops.is_empty() || sees(Hook::NftImmediate))
        && (rest.asks_maps.is_empty() || sees(Hook::NftLookup));
    if hooked.policy == Some(Policy::Drop) && seen_all && rest.others.is_empty() {
        return Some(of_policy(chain, base));
    }
    (hooked.kind != "nat").then(|| of_base(chain, &bases, &Missing::RuleOrPolicy))
}

/// The rule whose expression rejected the packet.
pub(super) fn rejected<'a>(case: &Case<'a>, step: &'a Step, reject: &'a record::Reject) -> Blame<'a> {
    let netns = case.netns();
    // The chain that it is in was seen too, if tracer was looking at chains by then.
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
        return Blame {
            words: format!("a rule of nf_tables at the {nf_hook} hook; {missing}"),
            evidence: vec![
                Evidence::seen("netfilter hook", nf_hook, step.event.hook),
                Evidence::seen("rule", missing.to_string(), step.event.hook),
            ],
            rule: None,
        };
    };
    let mut known = describe(rule, step.event.hook, nf_hook, "reject".to_owned());
    known.evidence.extend(gone(netns, rule));
    Blame {
        rule: Some(Known {
            table: &rule.table,
            comment: rule.comment.clone(),
            map: None,
            matches_invalid: rule.matches_invalid,
        }),
        ..known
    }
}

/// Why the rule is not named.
enum Missing {
    /// It had this handle, and no rule, or more than one, is loaded with it and that verdict.
    Gone(u64),
    /// It was not seen.
    Rule,
    /// Whether it was a rule was not seen.
    RuleOrPolicy,
}

impl Missing {
    fn of(rule: &NftRule) -> Self {
        match rule.handle {
            0 => Self::Rule,
            handle => Self::Gone(handle),
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone(handle) => write!(
                f,
                "the rule has handle {handle}; it, or it alone, was not found among the loaded ones"
            ),
            Self::Rule => f.write_str("which rule was not seen"),
            Self::RuleOrPolicy => f.write_str("which rule, or whether its policy, was not seen"),
        }
    }
}

/// The loaded base chains that the record can be about. Where the kernel does not describe nf_tables, it holds the
/// chain's name only.
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

/// Is this the name that was read, which may have been cut?
fn is_name(loaded: &str, read: &str) -> bool {
    const MOST: usize = 31;
    loaded == read || (read.len() == MOST && loaded.starts_with(read))
}

/// Does a table of this family see the packets of a hook's family?
fn sees_packet(table: Family, family: u32) -> bool {
    let family = u8::try_from(family).map(Family::from);
    match family {
        Ok(Family::Ip | Family::Ip6) => table == Family::Inet || Ok(table) == family,
        Ok(family) => table == family,
        Err(_) => true,
    }
}

pub(super) fn sees(table: Family, is_v6: bool) -> bool {
    table == Family::Inet || table == if is_v6 { Family::Ip6 } else { Family::Ip }
}

/// Is the rule in the table of one of these base chains; or, if none is loaded any more, in the table that was read?
fn is_there(rule: &Rule, bases: &[&Chain], read: &record::Chain) -> bool {
    let table = text(&read.table);
    let was_there =
        || !table.is_empty() && is_name(&rule.table, &table) && sees_packet(rule.family, read.family);
    bases.iter().any(|base| is_in_table_of(rule, base)) || (bases.is_empty() && was_there())
}

/// Can a packet meet the rule at this hook? Of a rule that was taken away it is not known any more.
fn is_met(netns: &NetnsFacts, rule: &Rule, nf_hook: u32, is_v6: bool) -> bool {
    let mut bases = netns.chains.iter().filter(|chain| {
        let hook = chain.base.as_ref().map(|base| base.hook);
        is_in_table_of(rule, chain) && hook.is_some_and(|hook| hook == nf_hook || nf_hook == UNKNOWN_NUMBER)
    });
    let loaded = netns.rules.iter().any(|known| std::ptr::eq(known, rule));
    sees(rule.family, is_v6) && (!loaded || bases.any(|base| Reach::from(netns, base).has(&rule.chain)))
}

/// Is it a rule for which the kernel calls this function to reject?
fn rejects_by(rule: &Rule, hook: Hook) -> bool {
    match hook {
        Hook::RejectTg => matches!(&rule.decides, Decides::Extension(name) if name == "REJECT"),
        Hook::NftRejectInet => rule.decides == Decides::Reject && rule.family == Family::Inet,
        _ => rule.decides == Decides::Reject && rule.family != Family::Inet,
    }
}

/// That the rule was taken away, if it was.
fn gone(netns: Option<&NetnsFacts>, rule: &Rule) -> Option<Evidence> {
    let mut loaded = netns?.rules.iter();
    let is_gone = !loaded.any(|known| std::ptr::eq(known, rule));
    is_gone.then(|| Evidence::read("rule since", "taken away, or written anew", NETLINK))
}

fn is_in_table_of(rule: &Rule, chain: &Chain) -> bool {
    (rule.family, &rule.table) == (chain.family, &chain.table)
}

/// The one rule with this handle, or before the one with that handle, that can be it: of the loaded ones, and of those
/// that were when a packet met them.
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
    // Handles are counted in each table. Of several, the rule behind it tells.
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
) -> Blame<'a> {
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
    let mut blame = describe(rule, hook, hook_name(chain.nf_hook), verdict);
    blame.evidence.insert(
        1,
        Evidence::seen("base chain", text(&chain.chain), Hook::NftDoChain),
    );
    let element = element.and_then(|element| element.comment.as_deref());
    if let Some(comment) = element {
        blame
            .evidence
            .push(Evidence::read("comment of the map's element", comment, NETLINK));
    }
    blame.evidence.extend(gone(Some(netns), rule));
    blame.rule = Some(Known {
        table: &rule.table,
        comment: rule.comment.clone(),
        map,
        matches_invalid: rule.matches_invalid,
    });
    blame
}

/// A rule, with all that is known of it.
pub(super) fn describe<'a>(rule: &Rule, hook: Hook, nf_hook: &str, verdict: String) -> Blame<'a> {
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
        Evidence::read("table", format!("{family} {table}"), NETLINK),
        Evidence::read("chain", chain, NETLINK),
        Evidence::seen("netfilter hook", nf_hook, hook),
        Evidence::seen(
            "rule",
            format!("number {number} of its chain, handle {handle}"),
            hook,
        ),
        Evidence::seen("verdict", verdict, hook),
    ];
    evidence.extend(
        comment
            .as_ref()
            .map(|comment| Evidence::read("comment", comment, NETLINK)),
    );
    evidence.extend(calico(chain));
    let said = comment
        .as_ref()
        .map_or_else(String::new, |comment| format!(", \"{comment}\""));
    Blame {
        words: format!(
            "rule {number} (handle {handle}) of chain {chain} in the nf_tables table {family} {table}, at the {nf_hook} \
             hook{said}"
        ),
        evidence,
        rule: None,
    }
}

fn of_policy<'a>(chain: &record::Chain, base: &Chain) -> Blame<'a> {
    let nf_hook = hook_name(chain.nf_hook);
    let Chain {
        family, table, name, ..
    } = base;
    Blame {
        words: format!(
            "the policy of base chain {name} in the nf_tables table {family} {table}, at the {nf_hook} hook: no rule \
             decided"
        ),
        evidence: vec![
            Evidence::seen("table", format!("{family} {table}"), Hook::NftDoChain),
            Evidence::seen("chain", name, Hook::NftDoChain),
            Evidence::seen("netfilter hook", nf_hook, Hook::NftDoChain),
            Evidence::read("policy of the chain", "drop", NETLINK),
        ],
        rule: None,
    }
}

/// A base chain of which it is not known which rule, or whether its policy.
fn of_base<'a>(chain: &record::Chain, bases: &[&Chain], missing: &Missing) -> Blame<'a> {
    let nf_hook = hook_name(chain.nf_hook);
    let name = text(&chain.chain);
    let table = match (bases, text(&chain.table)) {
        ([base], _) => format!("{} {}", base.family, base.table),
        (_, table) => table,
    };
    let place = if table.is_empty() {
        String::new()
    } else {
        format!(" in the nf_tables table {table}")
    };
    let mut evidence = vec![
        Evidence::seen("chain", &name, Hook::NftDoChain),
        Evidence::seen("netfilter hook", nf_hook, Hook::NftDoChain),
        Evidence::seen("rule", missing.to_string(), Hook::NftDoChain),
    ];
    if !table.is_empty() {
        evidence.insert(0, Evidence::seen("table", table, Hook::NftDoChain));
    }
    Blame {
        words: format!(
            "base chain {name}{place}, at the {nf_hook} hook, or a chain that it jumps to; {missing}"
        ),
        evidence,
        rule: None,
    }
}
