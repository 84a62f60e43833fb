//! Rules that reject.

use tracer::{
    diagnose::{Diagnosis, cause::Cause},
    facts::{
        NetnsFacts, iptables,
        nft::{Policy, rule::Decides},
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, NftRule},
};

use crate::{
    ruleset::{DROP, INPUT, base, filter, legacy, name, rule},
    story::{MS, NODE, Story, has},
};

fn rejected(facts: NetnsFacts, hook: Hook, reject: record::Reject, is_answered: bool) -> (Fate, Diagnosis) {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, facts);
    story.arrives(MS);
    story.rejected_by(2 * MS, hook, reject, is_answered);
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis)
}

fn reject_of(handle: u64) -> record::Reject {
    record::Reject {
        nf_hook: INPUT,
        rule: NftRule { handle, next: 0 },
        ..record::Reject::default()
    }
}

#[test]
fn a_rule_that_rejects_is_named() {
    let mut facts = filter();
    facts
        .rules
        .push(rule("filter", "HARDENING", 4, 14, Decides::Reject));
    let (fate, diagnosis) = rejected(facts.clone(), Hook::NftReject, reject_of(14), true);
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::NetfilterRuleRejected))
    );
    assert!(has(&diagnosis, "rule", "handle 14") && has(&diagnosis, "icmp-to-client", "port unreachable"));
    // The REJECT target in a rule that iptables-nft wrote.
    facts.rules.push(rule(
        "filter",
        "HARDENING",
        5,
        15,
        Decides::Extension("REJECT".to_owned()),
    ));
    let (_, diagnosis) = rejected(facts.clone(), Hook::RejectTg, reject_of(15), true);
    assert!(has(&diagnosis, "rule", "number 5 of its chain, handle 15"));
    // Rejected without an answer to the client: the SYN is dropped nevertheless.
    let (fate, diagnosis) = rejected(facts, Hook::NftReject, reject_of(14), false);
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::NetfilterRuleRejected))
    );
}

#[test]
fn a_rule_that_does_not_reject_is_not_named() {
    for handle in [0, 12, 99] {
        let (_, diagnosis) = rejected(filter(), Hook::NftReject, reject_of(handle), true);
        assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleRejected));
        assert!(!has(&diagnosis, "chain", "") && has(&diagnosis, "netfilter-hook", "input"));
    }
    // The same handle in two tables, both of which reject.
    let mut facts = filter();
    facts
        .rules
        .push(rule("filter", "HARDENING", 4, 14, Decides::Reject));
    facts
        .rules
        .push(rule("other", "HARDENING", 2, 14, Decides::Reject));
    // Nothing leads to the other one.
    let (_, diagnosis) = rejected(facts.clone(), Hook::NftReject, reject_of(14), true);
    assert!(has(&diagnosis, "table", "ip filter"));
    facts
        .chains
        .push(base("other", "HARDENING", "filter", Policy::Accept));
    let (_, diagnosis) = rejected(facts.clone(), Hook::NftReject, reject_of(14), true);
    assert!(!has(&diagnosis, "chain", ""));
    // But the one behind it is known.
    facts
        .rules
        .push(rule("other", "HARDENING", 3, 15, Decides::Nothing));
    let mut reject = reject_of(14);
    reject.rule.next = 15;
    let (_, diagnosis) = rejected(facts, Hook::NftReject, reject, true);
    assert!(has(&diagnosis, "table", "ip other"));
}

#[test]
fn a_legacy_rule_rejects_at_the_position_of_its_target() {
    let facts = NetnsFacts {
        tables: vec![legacy(
            "INPUT",
            &[DROP, iptables::Target::Extension("REJECT".to_owned())],
        )],
        ..NetnsFacts::default()
    };
    let at = |target| record::Reject {
        table: name("filter"),
        target,
        nf_hook: INPUT,
        ..record::Reject::default()
    };
    let (_, diagnosis) = rejected(facts.clone(), Hook::RejectTg, at(152 + 112), true);
    assert!(has(&diagnosis, "rule", "number 2 of its chain") && has(&diagnosis, "table", "filter"));
    // The rule at that position drops.
    let (_, diagnosis) = rejected(facts, Hook::RejectTg, at(112), true);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleRejected));
    assert!(has(&diagnosis, "rule", "no longer loaded"));
}
