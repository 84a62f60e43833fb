//! Rules that discard or reject: which one is named, and when none is.

mod story;

use std::collections::BTreeSet;

use story::{MS, Story, has};
use tracer::{
    decode::event::Payload,
    diagnose::{Dataplane, Diagnosis, cause::Cause},
    facts::{
        NetnsFacts, iptables,
        kube_proxy::LocalNodePorts,
        nft::{
            Base, Chain, Family, Policy,
            map::{Element, Map},
            rule::{Decides, Rule, Verdict, conditions::Conditions},
        },
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, IpvsService, NftRule, chain, table},
    uapi::{nft_verdict::NFT_JUMP, verdict::NF_DROP},
};

const NODE: u32 = 1;
const INPUT: u32 = 1;

fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn base(table: &str, chain: &str, kind: &str, policy: Policy) -> Chain {
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

fn rule(table: &str, chain: &str, number: usize, handle: u64, decides: Decides) -> Rule {
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
        matches_invalid: false,
        translation: None,
        conditions: Conditions::default(),
    }
}

fn drops() -> Decides {
    Decides::Verdict(Verdict::Drop)
}

/// A filter at the input hook, with a chain that it jumps to.
fn filter() -> NetnsFacts {
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

/// The base chain of [`filter`] dropped; a rule was seen to say so.
fn by(handle: u64, next: u64) -> record::Chain {
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

fn told(facts: NetnsFacts, chain: record::Chain) -> Diagnosis {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, facts);
    story.arrives(MS);
    story.dropped_by(2 * MS, Hook::NftDoChain, Payload::Chain(chain));
    let (_, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Dropped);
    diagnosis
}

#[test]
fn the_rule_that_was_seen_is_named_with_all_that_it_says() {
    let diagnosis = told(filter(), by(12, 13));
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
fn the_rule_before_the_next_one_is_it() {
    assert!(has(&told(filter(), by(0, 13)), "rule", "handle 12"));
    // The one before 12 accepts: what was read is not the rule that dropped.
    let diagnosis = told(filter(), by(0, 12));
    assert!(has(&diagnosis, "rule", "not seen") && !has(&diagnosis, "rule", "handle"));
}

#[test]
fn a_rule_that_cannot_have_said_so_is_not_named() {
    for (handle, says) in [(11, "handle 11"), (99, "handle 99"), (0, "not seen")] {
        let diagnosis = told(filter(), by(handle, 0));
        assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
        assert!(has(&diagnosis, "rule", says), "{diagnosis:?}");
        assert!(!has(&diagnosis, "rule-comment", "") && !has(&diagnosis, "chain", "HARDENING"));
        assert!(has(&diagnosis, "table", "filter") && has(&diagnosis, "chain", "INPUT"));
    }
}

#[test]
fn where_the_table_cannot_be_read_the_chain_and_the_rule_tell_it() {
    let unread = record::Chain {
        table: [0; 32],
        ..by(12, 0)
    };
    let mut facts = filter();
    // Two tables have a base chain of that name, but only one of them has such a rule.
    facts
        .chains
        .push(base("mangle", "INPUT", "filter", Policy::Accept));
    let diagnosis = told(facts.clone(), unread);
    assert!(has(&diagnosis, "table", "ip filter") && has(&diagnosis, "rule", "handle 12"));
    // And now both have.
    facts.rules.push(rule("mangle", "INPUT", 1, 12, drops()));
    let diagnosis = told(facts, unread);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(!has(&diagnosis, "table", "") && has(&diagnosis, "chain", "INPUT"));
}

#[test]
fn a_verdict_from_a_map_is_that_of_a_rule_that_asks_one() {
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
    let diagnosis = told(facts.clone(), looked_up(14));
    assert!(has(&diagnosis, "verdict", "drop, found in map ports") && has(&diagnosis, "rule", "handle 14"));
    // A rule with the verdict written in it looks nothing up, and the other way round.
    assert!(has(
        &told(facts.clone(), looked_up(12)),
        "rule",
        "not exactly one such rule is loaded"
    ));
    assert!(has(
        &told(facts, by(14, 0)),
        "rule",
        "not exactly one such rule is loaded"
    ));
}

#[test]
fn a_policy_drops_where_no_rule_was_seen_to() {
    let undecided = record::Chain {
        code: NFT_JUMP,
        ..by(0, 0)
    };
    let facts = |kind, policy| NetnsFacts {
        chains: vec![base("filter", "INPUT", kind, policy)],
        ..filter()
    };
    let diagnosis = told(facts("filter", Policy::Drop), undecided);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "chain-policy", "drop"), "{diagnosis:?}");
    // The policy lets pass: then it was something that is not looked at.
    let diagnosis = told(facts("filter", Policy::Accept), undecided);
    assert!(!has(&diagnosis, "chain-policy", "") && has(&diagnosis, "rule", "was not seen"));
    // Where addresses are translated, that may be what failed.
    let diagnosis = told(facts("nat", Policy::Accept), undecided);
    assert_eq!(diagnosis.cause, Some(Cause::Unknown));
    // An expression that may drop for reasons of its own.
    let mut own_reasons = facts("filter", Policy::Drop);
    own_reasons.rules.push(rule(
        "filter",
        "HARDENING",
        4,
        14,
        Decides::Other("synproxy".to_owned()),
    ));
    assert!(!has(&told(own_reasons, undecided), "chain-policy", ""));
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
    assert!(has(&diagnosis, "rule", "whether a rule or its policy") && !has(&diagnosis, "chain-policy", ""));
}

/// The table of [`iptables`], made from text: chain, then one letter a rule.
fn legacy(chain: &str, rules: &[iptables::Target]) -> iptables::Table {
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

fn told_by_legacy(table_name: &str, tables: Vec<iptables::Table>) -> Diagnosis {
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

const DROP: iptables::Target = iptables::Target::Verdict(iptables::Verdict::Drop);

#[test]
fn in_a_legacy_table_the_only_rule_that_can_have_dropped_is_named() {
    let mark = iptables::Target::Extension("MARK".to_owned());
    let diagnosis = told_by_legacy("filter", vec![legacy("INPUT", &[mark, DROP, DROP])]);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "rule", "number 2 of its chain") && has(&diagnosis, "chain", "INPUT"));
}

#[test]
fn in_a_legacy_table_none_of_several_is_named() {
    let reject = iptables::Target::Extension("REJECT".to_owned());
    let diagnosis = told_by_legacy("filter", vec![legacy("INPUT", &[reject, DROP])]);
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
    // What was read since has no such rule any more.
    let diagnosis = told_by_legacy("filter", vec![legacy("INPUT", &[])]);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "table", "filter") && !has(&diagnosis, "rule", ""));
}

#[test]
fn a_translation_that_fails_is_no_rule_that_drops() {
    let masquerade = iptables::Target::Extension("MASQUERADE".to_owned());
    let nat = iptables::Table {
        name: "nat".to_owned(),
        ..legacy("POSTROUTING", &[masquerade])
    };
    assert_eq!(told_by_legacy("nat", vec![nat]).cause, Some(Cause::Unknown));
    assert_eq!(told_by_legacy("nat", Vec::new()).cause, Some(Cause::Unknown));
}

fn rejected(facts: NetnsFacts, hook: Hook, reject: record::Reject, is_told: bool) -> (Fate, Diagnosis) {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, facts);
    story.arrives(MS);
    story.rejected_by(2 * MS, hook, reject, is_told);
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
    // The target of iptables, in a rule that iptables-nft wrote.
    facts.rules.push(rule(
        "filter",
        "HARDENING",
        5,
        15,
        Decides::Extension("REJECT".to_owned()),
    ));
    let (_, diagnosis) = rejected(facts.clone(), Hook::RejectTg, reject_of(15), true);
    assert!(has(&diagnosis, "rule", "number 5 of its chain, handle 15"));
    // Rejected, but nothing went back: the SYN is gone all the same.
    let (fate, diagnosis) = rejected(facts, Hook::NftReject, reject_of(14), false);
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::NetfilterRuleRejected))
    );
}

#[test]
fn a_rule_that_does_not_reject_is_not_the_one_that_did() {
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
fn a_rule_of_a_legacy_table_rejects_where_its_target_stands() {
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
    // There stands a rule that drops.
    let (_, diagnosis) = rejected(facts, Hook::RejectTg, at(112), true);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleRejected));
    assert!(has(&diagnosis, "rule", "no longer loaded"));
}

/// kube-proxy's nftables mode, with a NodePort whose service has no endpoint here.
fn kube_nftables() -> NetnsFacts {
    let key = vec![6, 0, 0, 0, 0x75, 0x80, 0, 0];
    NetnsFacts {
        chains: vec![base("kube-proxy", "INPUT", "filter", Policy::Accept)],
        rules: vec![rule(
            "kube-proxy",
            "nodeport-endpoints-check",
            1,
            14,
            Decides::Map("no-endpoint-nodeports".to_owned()),
        )],
        maps: vec![Map {
            family: Family::Ip,
            table: "kube-proxy".to_owned(),
            name: "no-endpoint-nodeports".to_owned(),
            elements: vec![Element {
                key,
                verdict: Verdict::Drop,
                comment: Some("shop/web:http".to_owned()),
            }],
        }],
        ..NetnsFacts::default()
    }
}

#[test]
fn kube_proxy_drops_where_the_node_has_no_endpoint() {
    let chain = record::Chain {
        table: name("kube-proxy"),
        seen: chain::LOOKUP | chain::BY_LOOKUP,
        ..by(14, 0)
    };
    let diagnosis = told(kube_nftables(), chain);
    assert_eq!(diagnosis.cause, Some(Cause::PolicyLocalNoEndpoint));
    assert!(has(&diagnosis, "map-element-comment", "shop/web:http"));
    // Somebody else's map of the same name.
    let mut other = kube_nftables();
    other.chains[0].table = "mine".to_owned();
    other.rules[0].table = "mine".to_owned();
    let chain = record::Chain {
        table: name("mine"),
        ..chain
    };
    assert_eq!(told(other, chain).cause, Some(Cause::NetfilterRuleDropped));
}

#[test]
fn kube_proxy_comment_gives_the_reason_for_a_drop() {
    let with = |comment: &str| {
        let mut facts = filter();
        facts.rules[2].comment = Some(comment.to_owned());
        told(facts, by(12, 0)).cause
    };
    assert_eq!(
        with("shop/web:http has no local endpoints"),
        Some(Cause::PolicyLocalNoEndpoint)
    );
    for other in [
        "shop/web:http has no endpoints",
        "shop/web",
        "it has no local endpoints",
    ] {
        assert_eq!(with(other), Some(Cause::NetfilterRuleDropped), "{other}");
    }
}

fn left_by_ipvs(num_dests: u32, local: &[u16]) -> Option<Cause> {
    let mut story = Story::new();
    let facts = NetnsFacts {
        local_node_ports: LocalNodePorts::of(local.iter().copied().collect(), BTreeSet::new()),
        ..NetnsFacts::default()
    };
    story.facts.netns.insert(NODE, facts);
    story.arrives(MS);
    story.ipvs(2 * MS, NF_DROP, |story| {
        let service = IpvsService {
            service: 1,
            num_dests,
            ..IpvsService::default()
        };
        story.syn(2 * MS + 1, Hook::IpvsLeave, Payload::IpvsService(service));
        let icmp = record::Icmp {
            icmp_type: 3,
            code: 3,
        };
        story.syn(2 * MS + 2, Hook::IcmpSend, Payload::Icmp(icmp));
    });
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.dataplane),
        (Fate::Refused, Some(Dataplane::Ipvs))
    );
    diagnosis.cause
}

#[test]
fn ipvs_without_a_real_server_is_the_policy_only_for_such_a_node_port() {
    assert_eq!(left_by_ipvs(0, &[30_080]), Some(Cause::PolicyLocalNoEndpoint));
    assert_eq!(left_by_ipvs(0, &[30_081]), Some(Cause::IpvsNoDestination));
    assert_eq!(left_by_ipvs(2, &[30_080]), Some(Cause::Unknown));
}

#[test]
fn whoever_translates_is_the_dataplane() {
    for (hook, dataplane) in [
        (Hook::XtDnat, Dataplane::Iptables),
        (Hook::XtDnatV0, Dataplane::Iptables),
        (Hook::NftNat, Dataplane::Nftables),
    ] {
        let mut story = Story::new();
        story.arrives(MS);
        story.syn(2 * MS, hook, Payload::Packet);
        story.reaches_pod(3 * MS);
        story.answered(4 * MS);
        story.acknowledged(5 * MS);
        let (_, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.dataplane), (Fate::Established, Some(dataplane)));
    }
}

#[test]
fn a_service_has_the_name_that_rules_give_it() {
    let mut story = Story::new();
    story.served(MS);
    let (flow, ..) = story.only();
    assert_eq!(story.facts.service(flow.netns, flow.node()), None);
    let names = &mut story.facts.netns.entry(NODE).or_default().node_ports;
    names.add(30_080, true, "shop/six".to_owned());
    names.add(30_081, false, "shop/api".to_owned());
    assert_eq!(story.facts.service(flow.netns, flow.node()), None);
    let names = &mut story.facts.netns.entry(NODE).or_default().node_ports;
    names.add(30_080, false, "shop/web".to_owned());
    assert_eq!(story.facts.service(flow.netns, flow.node()), Some("shop/web"));
}
