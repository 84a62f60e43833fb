//! Packets that netfilter dropped before tracer read the rules, and what can still be proven.

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
/// The address at which [`Story::dropped`] frees the packet.
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
        dports: None,
        untracks: false,
        matches_invalid: false,
        translation: None,
        key: None,
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
    story.dropped(2 * MS + 1);
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
    // IPVS passes translated packets to the output hook.
    let at_output = [
        "nft_do_chain",
        "nft_do_chain_ipv4",
        "nf_hook_slow",
        "ip_vs_nat_xmit",
    ];
    assert!(has(&freed(node(), &at_output), "rule", "handle 11"));
    // Without a stack the hook is unknown, and each chain could have dropped it.
    let diagnosis = freed(node(), &["nft_do_chain"]);
    assert_eq!(diagnosis.cause, Some(Cause::NetfilterRuleDropped));
    assert!(has(&diagnosis, "rule", "one of: rule with handle 10") && !has(&diagnosis, "chain", ""));
    // A table of another family never sees the packet at that hook.
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
fn the_policy_is_named_if_no_rule_could_have_dropped() {
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
fn a_nat_chain_may_have_failed_to_translate() {
    let mut facts = node();
    let by_nat = [
        "nft_do_chain",
        "nft_nat_do_chain",
        "nf_nat_inet_fn",
        "nf_hook_slow",
        "ip_output",
    ];
    assert_eq!(freed(facts.clone(), &by_nat).cause, Some(Cause::Unknown));
    // If the kind of chain is unknown, it may have been a nat chain.
    facts.chains.push(base("nat", "nat", 4, Policy::Accept));
    assert_eq!(freed(facts, &["nft_do_chain"]).cause, Some(Cause::Unknown));
}

#[test]
fn only_the_chains_that_could_have_dropped_are_named() {
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
    // A drop in another function has nothing to do with rules.
    let diagnosis = freed(node(), &["ip_forward", "ip_rcv"]);
    assert!(!has(&diagnosis, "suspects", "") && !has(&diagnosis, "netfilter-hook", ""));
}
