//! A packet that netfilter discarded before tracer looked at rules: what is certain all the same.

mod story;

use story::{MS, NODE, Story, has, original};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{
        NetnsFacts,
        nft::{
            Base, Chain, Family, Policy,
            rule::{Decides, Rule, Verdict, conditions::Conditions},
        },
    },
};
use tracer_common::{
    hook::Hook,
    record::{self, FRAMES},
    tcp::Part,
};

const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
/// Where [`Story::discarded`] says that the packet was freed.
const FREED: u64 = 0x1234;

fn base(table: &str, kind: &str, hook: u32, policy: Policy) -> Chain {
    Chain {
        family: Family::Ip,
        table: table.to_owned(),
        name: "base".to_owned(),
        handle: 1,
        base: Some(Base {
            hook,
            priority: 0,
            kind: kind.to_owned(),
            policy: Some(policy),
        }),
    }
}

fn rule(table: &str, handle: u64, decides: Decides) -> Rule {
    Rule {
        family: Family::Ip,
        table: table.to_owned(),
        chain: "base".to_owned(),
        handle,
        number: 1,
        comment: Some(format!("comment {handle}")),
        decides,
        dport: None,
        has_destination: false,
        matches_invalid: false,
        translation: None,
        conditions: Conditions::default(),
    }
}

/// A node with a chain at the input hook that drops, and one at the output hook.
fn node() -> NetnsFacts {
    NetnsFacts {
        chains: vec![
            base("in", "filter", INPUT, Policy::Accept),
            base("out", "filter", OUTPUT, Policy::Accept),
        ],
        rules: vec![
            rule("in", 10, Decides::Verdict(Verdict::Drop)),
            rule("out", 11, Decides::Verdict(Verdict::Drop)),
        ],
        ..NetnsFacts::default()
    }
}

/// The only SYN is freed with this stack, the innermost function first.
fn freed(facts: NetnsFacts, functions: &[&str]) -> Diagnosis {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, facts);
    let mut stack = record::Stack { frames: [0; FRAMES] };
    stack.frames[0] = 1;
    story.facts.symbols.insert(1, "kfree_skb_reason+0x1".to_owned());
    let places = stack.frames[1..].iter_mut().zip(FREED..);
    for ((frame, address), function) in places.zip(functions) {
        *frame = address;
        story.facts.symbols.insert(address, format!("{function}+0x3b"));
    }
    story.arrives(MS);
    let tuple = original(story.port);
    let what = Payload::Stack(Box::new(stack));
    story.see(2 * MS, Hook::KfreeSkb, Part::Syn, tuple, NODE, what);
    story.discarded(2 * MS + 1);
    story.only().2
}

#[test]
fn a_chain_that_freed_the_packet_itself_dropped_it() {
    let at_input = [
        "nft_do_chain",
        "nft_do_chain_ipv4",
        "nf_hook_slow",
        "ip_local_deliver",
    ];
    let diagnosis = freed(node(), &at_input);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "netfilter-hook", "input") && has(&diagnosis, "rule", "handle 10"));
    // IPVS hands what it has translated to the output hook.
    let at_output = [
        "nft_do_chain",
        "nft_do_chain_ipv4",
        "nf_hook_slow",
        "ip_vs_nat_xmit",
    ];
    assert!(has(&freed(node(), &at_output), "rule", "handle 11"));
    // Without a stack the hook is not known, and each of them can have been it.
    let diagnosis = freed(node(), &["nft_do_chain"]);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "rule", "one of: rule with handle 10") && !has(&diagnosis, "chain", ""));
    // A table of another family sees no such packet there.
    let inet = [
        "nft_do_chain",
        "nft_do_chain_inet",
        "nf_hook_slow",
        "ip_local_deliver",
    ];
    let diagnosis = freed(node(), &inet);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(!has(&diagnosis, "rule", ""));
}

#[test]
fn a_policy_is_named_where_no_rule_can_have_dropped() {
    let facts = NetnsFacts {
        chains: vec![base("in", "filter", INPUT, Policy::Drop)],
        rules: vec![rule("in", 10, Decides::Verdict(Verdict::Accept))],
        ..NetnsFacts::default()
    };
    let at_input = [
        "nft_do_chain",
        "nft_do_chain_ipv4",
        "nf_hook_slow",
        "ip_local_deliver",
    ];
    let diagnosis = freed(facts, &at_input);
    assert!(has(&diagnosis, "chain-policy", "drop") && has(&diagnosis, "table", "ip in"));
}

#[test]
fn a_chain_that_translates_may_have_failed_to() {
    let mut facts = node();
    let by_nat = [
        "nft_do_chain",
        "nft_nat_do_chain",
        "nf_nat_inet_fn",
        "nf_hook_slow",
        "ip_output",
    ];
    assert_eq!(freed(facts.clone(), &by_nat).cause, Some(Cause::Unknown));
    // Where it is not known which kind of chain it was, it may have been that one.
    facts.chains.push(base("nat", "nat", 4, Policy::Accept));
    assert_eq!(freed(facts, &["nft_do_chain"]).cause, Some(Cause::Unknown));
}

#[test]
fn netfilter_discards_for_many_and_only_the_suspects_are_told() {
    let diagnosis = freed(node(), &["nf_hook_slow", "ip_local_deliver", "ip_rcv"]);
    assert_eq!(diagnosis.cause, Some(Cause::Unknown));
    assert!(has(&diagnosis, "netfilter-hook", "input"));
    assert!(has(
        &diagnosis,
        "suspects",
        "rule with handle 10 of ip in base (\"comment 10\")"
    ));
    assert!(!has(&diagnosis, "suspects", "handle 11"));
    assert!(has(
        &diagnosis,
        "called-by",
        "ip_local_deliver+0x3b < ip_rcv+0x3b"
    ));
    // Another function's drop has nothing to do with rules.
    let diagnosis = freed(node(), &["ip_forward", "ip_rcv"]);
    assert!(!has(&diagnosis, "suspects", "") && !has(&diagnosis, "netfilter-hook", ""));
}
