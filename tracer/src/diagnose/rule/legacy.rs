//! Rules in the legacy tables of iptables.

use tracer_common::{
    hook::Hook,
    record::{self, table as have},
    tcp::{ACK, Part, SYN},
};

use super::{Blame, GETSOCKOPT, Known, calico, hook_name};
use crate::{
    decode::event::text,
    diagnose::{case::Case, evidence::Evidence},
    facts::{
        iptables::{Found, Outcome, Packet, Table, outcomes},
        xt::{self, Match},
    },
    flow::model::Step,
};

/// The table that returned the verdict to drop, and the rule or the policy that alone can have said so. `None` where a
/// translation may have failed instead.
pub(super) fn dropped<'a>(case: &Case<'a>, step: &Step, seen: &record::Table) -> Option<Blame<'a>> {
    let name = text(&seen.name);
    let places = case
        .netns()
        .and_then(|netns| loaded(&netns.tables, &name, step.event.tuple.is_v6()))
        .map(|table| (table, places(table, step, seen)));
    let extensions = places.as_ref().is_none_or(|(_, places)| {
        places.is_empty()
            || places
                .iter()
                .any(|place| matches!(place, Outcome::Extension { .. }))
    });
    if name == "nat" && extensions {
        return None;
    }
    let nf_hook = hook_name(seen.nf_hook);
    let mut evidence = vec![
        Evidence::seen("table", &name, Hook::IptDoTable),
        Evidence::seen("netfilter hook", nf_hook, Hook::IptDoTable),
    ];
    let (found, rule) = match places {
        Some((table, places)) => match places.as_slice() {
            [Outcome::Rule { chain, number, rule }] => {
                let found = Found {
                    chain,
                    number: *number,
                    rule,
                };
                let known = describe(&mut evidence, table, &found, "drop");
                evidence.push(Evidence::read(
                    "why this rule",
                    "it is the only one of the table that this packet can have met and been dropped by",
                    GETSOCKOPT,
                ));
                (words(&found), Some(known))
            }
            [Outcome::Policy(chain)] => {
                evidence.push(Evidence::read("chain", &chain.name, GETSOCKOPT));
                evidence.push(Evidence::read("policy of the chain", "drop", GETSOCKOPT));
                (format!("the policy of chain {}", chain.name), None)
            }
            [] => (String::new(), None),
            several => {
                let list: Vec<String> = several.iter().map(place).collect();
                evidence.push(Evidence::read(
                    "rule",
                    format!("one of {}", list.join(", ")),
                    GETSOCKOPT,
                ));
                (String::new(), None)
            }
        },
        None => (String::new(), None),
    };
    let words = if found.is_empty() {
        format!(
            "iptables' legacy table {name}, at the {nf_hook} hook; the kernel does not show which of its rules it was"
        )
    } else {
        format!("{found} in iptables' legacy table {name}, at the {nf_hook} hook")
    };
    Some(Blame {
        words,
        evidence,
        rule,
    })
}

/// The rule whose target rejected the packet: the kernel showed where it stands.
pub(super) fn rejected<'a>(case: &Case<'a>, step: &Step, reject: &record::Reject) -> Blame<'a> {
    let name = text(&reject.table);
    let nf_hook = hook_name(reject.nf_hook);
    let mut evidence = vec![
        Evidence::seen("table", &name, step.event.hook),
        Evidence::seen("netfilter hook", nf_hook, step.event.hook),
    ];
    let found = case
        .netns()
        .and_then(|netns| loaded(&netns.tables, &name, step.event.tuple.is_v6()))
        .and_then(|table| Some((table, table.rule_at(reject.target)?)))
        .filter(|(_, found)| found.rule.target.is_extension("REJECT"));
    let place = format!("iptables' legacy table {name}, at the {nf_hook} hook");
    let Some((table, found)) = found else {
        evidence.push(Evidence::seen("rule", "not loaded any more", step.event.hook));
        return Blame {
            words: format!("a rule in {place}, which is not loaded any more"),
            evidence,
            rule: None,
        };
    };
    let known = describe(&mut evidence, table, &found, "reject");
    Blame {
        words: format!("{} in {place}", words(&found)),
        evidence,
        rule: Some(known),
    }
}

fn loaded<'a>(tables: &'a [Table], name: &str, is_v6: bool) -> Option<&'a Table> {
    tables
        .iter()
        .find(|table| table.name == name && table.is_v6 == is_v6)
}

/// Where in the table the packet can have been dropped.
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

/// What is known of a step's packet, but for its devices.
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
        },
    }
}

fn words(found: &Found<'_>) -> String {
    let said = found
        .rule
        .comment()
        .map_or_else(String::new, |comment| format!(" (\"{comment}\")"));
    format!("rule {}{said} of chain {}", found.number, found.chain.name)
}

pub(super) fn place(outcome: &Outcome<'_>) -> String {
    match outcome {
        Outcome::Rule { chain, number, .. } => format!("rule {number} of {}", chain.name),
        Outcome::Policy(chain) => format!("the policy of {}", chain.name),
        Outcome::Extension { chain, number, name } => format!("rule {number} of {} ({name})", chain.name),
    }
}

fn describe<'a>(
    evidence: &mut Vec<Evidence>,
    table: &'a Table,
    found: &Found<'_>,
    verdict: &str,
) -> Known<'a> {
    let comment = found.rule.comment();
    let read = |what: &str, value: String| Evidence::read(what, value, GETSOCKOPT);
    evidence.push(read("chain", found.chain.name.clone()));
    evidence.push(read("rule", format!("number {} of its chain", found.number)));
    evidence.push(read("verdict", verdict.to_owned()));
    evidence.extend(comment.clone().map(|comment| read("comment", comment)));
    evidence.extend(calico(&found.chain.name));
    Known {
        table: &table.name,
        comment,
        map: None,
        matches_invalid: found.rule.matches.iter().any(Match::matches_invalid),
    }
}
