//! Rules of iptables-legacy that drop: the kernel does not show which one decided.

use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{NetnsFacts, iptables},
};
use tracer_common::{
    hook::Hook,
    record::{self, table},
};

use crate::{
    ruleset::{DROP, INPUT, legacy, name},
    story::{MS, NODE, Story, has},
};

fn dropped_by_legacy(table_name: &str, tables: Vec<iptables::Table>) -> Diagnosis {
    let mut story = Story::new();
    let facts = NetnsFacts {
        tables,
        ..NetnsFacts::default()
    };
    story.facts.netns.insert(NODE, facts);
    story.arrives(MS);
    let seen = record::Table {
        name: name(table_name),
        input: name("eth0"),
        nf_hook: INPUT,
        have: table::MARK | table::CTINFO,
        ctinfo: table::NEW,
        ..record::Table::default()
    };
    story.dropped_by(2 * MS, Hook::IptDoTable, Payload::Table(seen));
    story.only().2
}

#[test]
fn in_a_legacy_table_the_only_rule_that_could_have_dropped_is_named() {
    let mark = iptables::Target::Extension("MARK".to_owned());
    let diagnosis = dropped_by_legacy("filter", vec![legacy("INPUT", &[mark, DROP, DROP])]);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "rule", "number 2 of its chain") && has(&diagnosis, "chain", "INPUT"));
}

#[test]
fn in_a_legacy_table_none_of_several_is_named() {
    let reject = iptables::Target::Extension("REJECT".to_owned());
    let diagnosis = dropped_by_legacy("filter", vec![legacy("INPUT", &[reject, DROP])]);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(
        has(
            &diagnosis,
            "rule",
            "one of: rule 1 of INPUT (REJECT), rule 2 of INPUT"
        ),
        "{diagnosis:?}"
    );
    assert!(!has(&diagnosis, "chain", "INPUT"));
    // The ruleset read since has no such rule.
    let diagnosis = dropped_by_legacy("filter", vec![legacy("INPUT", &[])]);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "table", "filter") && !has(&diagnosis, "rule", ""));
}

#[test]
fn a_failed_translation_is_not_a_rule_that_drops() {
    let masquerade = iptables::Target::Extension("MASQUERADE".to_owned());
    let nat = iptables::Table {
        name: "nat".to_owned(),
        ..legacy("POSTROUTING", &[masquerade])
    };
    assert_eq!(dropped_by_legacy("nat", vec![nat]).cause, Some(Cause::Unknown));
    assert_eq!(dropped_by_legacy("nat", Vec::new()).cause, Some(Cause::Unknown));
}
