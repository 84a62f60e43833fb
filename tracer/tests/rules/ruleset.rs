//! Rulesets that the tests judge, and what happens to a SYN under one.

use tracer::{
    decode::event::Payload,
    diagnose::Diagnosis,
    facts::{
        NetnsFacts, iptables,
        nft::{
            Base, Chain, Family, Policy,
            rule::{Decides, Rule, Verdict, conditions::Conditions},
        },
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, NftRule, chain},
    uapi::verdict::NF_DROP,
};

use crate::story::{MS, NODE, Story};

pub(crate) const INPUT: u32 = 1;

pub(crate) fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

pub(crate) fn base(table: &str, chain: &str, kind: &str, policy: Policy) -> Chain {
    Chain {
        family: Family::Ip,
        table: table.to_owned(),
        name: chain.to_owned(),
        handle: 1,
        base: Some(Base {
            hook: INPUT,
            priority: 0,
            kind: kind.to_owned(),
            policy: Some(policy),
        }),
    }
}

pub(crate) fn rule(table: &str, chain: &str, number: usize, handle: u64, decides: Decides) -> Rule {
    Rule {
        family: Family::Ip,
        table: table.to_owned(),
        chain: chain.to_owned(),
        handle,
        number,
        comment: Some(format!("comment {handle}")),
        decides,
        dport: None,
        has_destination: false,
        dports: None,
        untracks: false,
        matches_invalid: false,
        translation: None,
        key: None,
        conditions: Conditions::default(),
    }
}

pub(crate) fn drops() -> Decides {
    Decides::Verdict(Verdict::Drop)
}

/// A filter at the input hook that jumps to another chain.
pub(crate) fn filter() -> NetnsFacts {
    NetnsFacts {
        chains: vec![base("filter", "INPUT", "filter", Policy::Accept)],
        rules: vec![
            rule(
                "filter",
                "INPUT",
                1,
                10,
                Decides::Verdict(Verdict::Jump("HARDENING".to_owned())),
            ),
            rule("filter", "HARDENING", 1, 11, Decides::Verdict(Verdict::Accept)),
            rule("filter", "HARDENING", 2, 12, drops()),
            rule("filter", "HARDENING", 3, 13, drops()),
            rule("other", "HARDENING", 1, 12, drops()),
        ],
        ..NetnsFacts::default()
    }
}

/// The base chain of [`filter`] dropped the packet, and the rule that decided it was seen.
pub(crate) fn by(handle: u64, next: u64) -> record::Chain {
    record::Chain {
        table: name("filter"),
        chain: name("INPUT"),
        nf_hook: INPUT,
        family: 2,
        seen: chain::IMMEDIATE,
        code: NF_DROP,
        rule: NftRule { handle, next },
    }
}

pub(crate) fn diagnosis_of(facts: NetnsFacts, chain: record::Chain) -> Diagnosis {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, facts);
    story.arrives(MS);
    story.dropped_by(2 * MS, Hook::NftDoChain, Payload::Chain(chain));
    let (_, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Dropped);
    diagnosis
}

pub(crate) const DROP: iptables::Target = iptables::Target::Verdict(iptables::Verdict::Drop);

/// An iptables-legacy filter table with one chain, whose rules have these targets.
pub(crate) fn legacy(chain: &str, rules: &[iptables::Target]) -> iptables::Table {
    iptables::Table {
        name: "filter".to_owned(),
        is_v6: false,
        chains: vec![iptables::Chain {
            name: chain.to_owned(),
            base: Some((INPUT, iptables::Verdict::Accept)),
            rules: rules
                .iter()
                .zip((0..).step_by(152))
                .map(|(target, at)| iptables::Rule {
                    address: iptables::AddressMatch::default(),
                    matches: Vec::new(),
                    target: target.clone(),
                    translation: None,
                    target_at: at + 112,
                })
                .collect(),
        }],
    }
}
