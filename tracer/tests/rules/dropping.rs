//! Rules and policies of nf_tables that drop.

use tracer::{
    decode::event::Payload,
    diagnose::cause::Cause,
    facts::{
        NetnsFacts,
        nft::{Policy, rule::Decides},
    },
};
use tracer_common::{
    hook::Hook,
    record::{self, chain},
    uapi::nft_verdict::NFT_JUMP,
};

use crate::{
    ruleset::{base, by, diagnosis_of, drops, filter, rule},
    story::{MS, NODE, Story, has},
};

#[test]
fn the_rule_that_was_seen_is_named_in_full() {
    let diagnosis = diagnosis_of(filter(), by(12, 13));
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    for (key, value) in [
        ("table", "ip filter"),
        ("chain", "HARDENING"),
        ("base-chain", "INPUT"),
        ("netfilter-hook", "input"),
        ("rule", "number 2 of its chain, handle 12"),
        ("rule-comment", "comment 12"),
        ("verdict", "drop"),
    ] {
        assert!(has(&diagnosis, key, value), "{key}: {diagnosis:?}");
    }
}

#[test]
fn the_rule_before_the_next_one_decided() {
    assert!(has(&diagnosis_of(filter(), by(0, 13)), "rule", "handle 12"));
    // The rule before 12 accepts: it is not the one that dropped.
    let diagnosis = diagnosis_of(filter(), by(0, 12));
    assert!(has(&diagnosis, "rule", "did not see which rule") && !has(&diagnosis, "rule", "handle"));
}

#[test]
fn a_rule_that_cannot_have_dropped_is_not_named() {
    for (handle, named) in [
        (11, "handle 11"),
        (99, "handle 99"),
        (0, "did not see which rule"),
    ] {
        let diagnosis = diagnosis_of(filter(), by(handle, 0));
        assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
        assert!(has(&diagnosis, "rule", named), "{diagnosis:?}");
        assert!(!has(&diagnosis, "rule-comment", "") && !has(&diagnosis, "chain", "HARDENING"));
        assert!(has(&diagnosis, "table", "filter") && has(&diagnosis, "chain", "INPUT"));
    }
}

#[test]
fn the_chain_and_the_rule_identify_a_table_that_cannot_be_read() {
    let unread = record::Chain {
        table: [0; 32],
        ..by(12, 0)
    };
    let mut facts = filter();
    // Two tables have a base chain of that name, but only one of them has such a rule.
    facts
        .chains
        .push(base("mangle", "INPUT", "filter", Policy::Accept));
    let diagnosis = diagnosis_of(facts.clone(), unread);
    assert!(has(&diagnosis, "table", "ip filter") && has(&diagnosis, "rule", "handle 12"));
    // Now both have one.
    facts.rules.push(rule("mangle", "INPUT", 1, 12, drops()));
    let diagnosis = diagnosis_of(facts, unread);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(!has(&diagnosis, "table", "") && has(&diagnosis, "chain", "INPUT"));
}

#[test]
fn a_verdict_from_a_map_belongs_to_a_rule_that_looks_one_up() {
    let mut facts = filter();
    facts.rules.push(rule(
        "filter",
        "HARDENING",
        4,
        14,
        Decides::Map("ports".to_owned()),
    ));
    let looked_up = |handle| record::Chain {
        seen: chain::IMMEDIATE | chain::LOOKUP | chain::BY_LOOKUP,
        ..by(handle, 0)
    };
    let diagnosis = diagnosis_of(facts.clone(), looked_up(14));
    assert!(has(&diagnosis, "verdict", "drop, found in map ports") && has(&diagnosis, "rule", "handle 14"));
    // A rule with an immediate verdict looks nothing up, and a rule that looks one up has no immediate verdict.
    assert!(has(
        &diagnosis_of(facts.clone(), looked_up(12)),
        "rule",
        "matches no single loaded rule"
    ));
    assert!(has(
        &diagnosis_of(facts, by(14, 0)),
        "rule",
        "matches no single loaded rule"
    ));
}

#[test]
fn the_policy_dropped_if_no_rule_was_seen_to_drop() {
    let undecided = record::Chain {
        code: NFT_JUMP,
        ..by(0, 0)
    };
    let facts = |kind, policy| NetnsFacts {
        chains: vec![base("filter", "INPUT", kind, policy)],
        ..filter()
    };
    let diagnosis = diagnosis_of(facts("filter", Policy::Drop), undecided);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "chain-policy", "drop"), "{diagnosis:?}");
    // The policy accepts: the drop came from something that tracer does not read.
    let diagnosis = diagnosis_of(facts("filter", Policy::Accept), undecided);
    assert!(!has(&diagnosis, "chain-policy", "") && has(&diagnosis, "rule", "did not see"));
    // In a nat chain, the translation may have failed.
    let diagnosis = diagnosis_of(facts("nat", Policy::Accept), undecided);
    assert_eq!(diagnosis.cause, Some(Cause::Unknown));
    // An expression that can drop on its own.
    let mut own_reasons = facts("filter", Policy::Drop);
    own_reasons.rules.push(rule(
        "filter",
        "HARDENING",
        4,
        14,
        Decides::Other("synproxy".to_owned()),
    ));
    assert!(!has(&diagnosis_of(own_reasons, undecided), "chain-policy", ""));
}

#[test]
fn a_policy_is_not_blamed_while_rules_cannot_be_seen() {
    let mut story = Story::new();
    let facts = NetnsFacts {
        chains: vec![base("filter", "INPUT", "filter", Policy::Drop)],
        ..filter()
    };
    story.facts.netns.insert(NODE, facts);
    story.facts.absent.insert(Hook::NftImmediate);
    story.arrives(MS);
    let nothing = record::Chain {
        seen: 0,
        code: -1,
        ..by(0, 0)
    };
    story.dropped_by(2 * MS, Hook::NftDoChain, Payload::Chain(nothing));
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "rule", "whether a rule or the policy") && !has(&diagnosis, "chain-policy", ""));
}
