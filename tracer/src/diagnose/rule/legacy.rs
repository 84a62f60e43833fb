//! Rules in legacy iptables tables.

use tracer_common::{
    hook::Hook,
    record::{self, table as have},
    tcp::{ACK, Part, SYN},
};

use super::culprit::{Culprit, GETSOCKOPT, Known, calico, hook_name};
use crate::{
    decode::event::text,
    diagnose::{
        blame::{Blame, Rule},
        case::Case,
        evidence::{Evidence, Key},
    },
    facts::{
        iptables::{Found, Outcome, Packet, Table, outcomes},
        xt::{self, Match},
    },
    flow::model::Step,
};

/// The table that returned the verdict to drop, with the only rule or policy that could have given it. `None` where a translation
/// may have failed instead.
pub(super) fn dropped<'a>(case: &Case<'a>, step: &Step, seen: &record::Table) -> Option<Culprit<'a>> {
    let name = text(&seen.name);
    let places = case
        .netns()
        .and_then(|netns| loaded(&netns.tables, &name, step.event.tuple.is_v6()))
        .map(|table| (table, places(table, step, seen)));
    let may_be_extension = places.as_ref().is_none_or(|(_, places)| {
        places.is_empty()
            || places
                .iter()
                .any(|place| matches!(place, Outcome::Extension { .. }))
    });
    if name == "nat" && may_be_extension {
        return None;
    }
    let nf_hook = hook_name(seen.nf_hook);
    let mut evidence = vec![
        Evidence::seen(Key::Table, &name, Hook::IptDoTable),
        Evidence::seen(Key::NetfilterHook, nf_hook, Hook::IptDoTable),
    ];
    let place = format!("iptables' legacy table {name}, at the {nf_hook} hook");
    let mut blame = Blame {
        table: Some(name),
        ..Blame::default()
    };
    let mut known = None;
    let mut words = format!("{place}; the kernel does not show which of its rules it was");
    if let Some((table, places)) = places {
        match places.as_slice() {
            [Outcome::Rule { chain, number, rule }] => {
                let found = Found {
                    chain,
                    number: *number,
                    rule,
                };
                known = Some(describe(&mut evidence, table, &found, "drop"));
                evidence.push(Evidence::read(
                    Key::RuleReason,
                    "the only rule of the table that could have dropped this packet",
                    GETSOCKOPT,
                ));
                words = format!("{} in {place}", description(&found));
                blame = blame_of(&blame, &chain.name, rule_number(*number));
            }
            [Outcome::Policy(chain)] => {
                evidence.push(Evidence::read(Key::Chain, &chain.name, GETSOCKOPT));
                evidence.push(Evidence::read(Key::ChainPolicy, "drop", GETSOCKOPT));
                words = format!("the policy of chain {} in {place}", chain.name);
                blame = blame_of(&blame, &chain.name, Rule::Policy);
            }
            [] => {}
            several => {
                let list: Vec<String> = several.iter().map(self::place).collect();
                evidence.push(Evidence::read(
                    Key::Rule,
                    format!("one of: {}", list.join(", ")),
                    GETSOCKOPT,
                ));
            }
        }
    }
    Some(Culprit {
        words,
        evidence,
        blame,
        known,
    })
}

fn blame_of(table: &Blame, chain: &str, rule: Rule) -> Blame {
    Blame {
        chain: Some(chain.to_owned()),
        rule: Some(rule),
        ..table.clone()
    }
}

const fn rule_number(number: usize) -> Rule {
    Rule::Number { number, handle: None }
}

/// The rule whose target rejected the packet: the kernel showed its position.
pub(super) fn rejected<'a>(case: &Case<'a>, step: &Step, reject: &record::Reject) -> Culprit<'a> {
    let name = text(&reject.table);
    let nf_hook = hook_name(reject.nf_hook);
    let mut evidence = vec![
        Evidence::seen(Key::Table, &name, step.event.hook),
        Evidence::seen(Key::NetfilterHook, nf_hook, step.event.hook),
    ];
    let found = case
        .netns()
        .and_then(|netns| loaded(&netns.tables, &name, step.event.tuple.is_v6()))
        .and_then(|table| Some((table, table.rule_at(reject.target)?)))
        .filter(|(_, found)| found.rule.target.is_extension("REJECT"));
    let place = format!("iptables' legacy table {name}, at the {nf_hook} hook");
    let blame = Blame {
        table: Some(name),
        ..Blame::default()
    };
    let Some((table, found)) = found else {
        evidence.push(Evidence::seen(Key::Rule, "no longer loaded", step.event.hook));
        return Culprit {
            words: format!("a rule that is no longer loaded, in {place}"),
            evidence,
            blame,
            known: None,
        };
    };
    let known = describe(&mut evidence, table, &found, "reject");
    Culprit {
        words: format!("{} in {place}", description(&found)),
        evidence,
        blame: blame_of(&blame, &found.chain.name, rule_number(found.number)),
        known: Some(known),
    }
}

fn loaded<'a>(tables: &'a [Table], name: &str, is_v6: bool) -> Option<&'a Table> {
    tables
        .iter()
        .find(|table| table.name == name && table.is_v6 == is_v6)
}

/// The places in the table where the packet could have been dropped.
fn places<'a>(table: &'a Table, step: &Step, seen: &record::Table) -> Vec<Outcome<'a>> {
    let (input, output) = (text(&seen.input), text(&seen.output));
    let mark = (seen.have & have::MARK != 0).then_some(seen.mark);
    let ctinfo = (seen.have & have::CTINFO != 0).then_some(seen.ctinfo);
    let packet = Packet {
        input: Some(&input),
        output: Some(&output),
        ..packet(step, mark, ctinfo)
    };
    outcomes(table, seen.nf_hook, &packet)
}

/// The known properties of a step's packet, except its devices.
pub(super) fn packet(step: &Step, mark: Option<u32>, ctinfo: Option<u32>) -> Packet<'static> {
    let tuple = &step.event.tuple;
    Packet {
        source: tuple.saddr.ip(),
        destination: tuple.daddr.ip(),
        input: None,
        output: None,
        inner: xt::Packet {
            sport: tuple.sport,
            dport: tuple.dport,
            tcp_flags: match step.event.part {
                Part::Syn => Some(SYN),
                Part::SynAck => Some(SYN | ACK),
                _ => None,
            },
            mark,
            ctinfo,
            from_node: None,
        },
    }
}

/// The rule, as part of a sentence.
fn description(found: &Found<'_>) -> String {
    let comment = found
        .rule
        .comment()
        .map_or_else(String::new, |comment| format!(" (\"{comment}\")"));
    format!("rule {}{comment} of chain {}", found.number, found.chain.name)
}

/// One place, as part of a list.
pub(super) fn place(outcome: &Outcome<'_>) -> String {
    match outcome {
        Outcome::Rule { chain, number, .. } => format!("rule {number} of {}", chain.name),
        Outcome::Policy(chain) => format!("the policy of {}", chain.name),
        Outcome::Extension { chain, number, name } => format!("rule {number} of {} ({name})", chain.name),
    }
}

/// Adds what is known of a rule to the evidence.
fn describe<'a>(
    evidence: &mut Vec<Evidence>,
    table: &'a Table,
    found: &Found<'_>,
    verdict: &str,
) -> Known<'a> {
    let comment = found.rule.comment();
    let read = |key: Key, value: String| Evidence::read(key, value, GETSOCKOPT);
    evidence.push(read(Key::Chain, found.chain.name.clone()));
    evidence.push(read(Key::Rule, format!("number {} of its chain", found.number)));
    evidence.push(read(Key::Verdict, verdict.to_owned()));
    evidence.extend(comment.clone().map(|comment| read(Key::RuleComment, comment)));
    evidence.extend(calico(&found.chain.name));
    Known {
        table: &table.name,
        comment,
        map: None,
        matches_invalid: found.rule.matches.iter().any(Match::matches_invalid),
    }
}
