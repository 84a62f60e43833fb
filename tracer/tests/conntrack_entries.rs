//! Packets and existing conntrack entries: clients pinned to an old backend, and INVALID packets.

mod story;

use std::collections::VecDeque;

use story::{MS, PATIENCE, Story, has, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::cause::Cause,
    facts::{
        NetnsFacts,
        nft::{
            Base, Chain, Family, Policy,
            rule::{Decides, Rule, Verdict, conditions::Conditions},
        },
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, Conntrack, NftRule, chain, conntrack},
    tcp::Part,
    tuple::Tuple,
    uapi::verdict::{NF_ACCEPT, NF_DROP},
};

const NODE: u32 = 1;
const FORWARD: u32 = 2;
const PORT: u16 = 40_001;

fn entry_of(port: u16) -> Conntrack {
    Conntrack {
        ct: 0x7000,
        original: original(port),
        reply: translated(port).reversed(),
        status: conntrack::CONFIRMED | conntrack::DST_NAT,
        tcp_state: 1,
    }
}

fn on_node(story: &mut Story, at: u64, hook: Hook, tuple: Tuple, what: Payload) {
    story.see(at, hook, Part::Syn, tuple, NODE, what);
}

/// A SYN that traverses the NAT rules, which choose a pod.
fn chosen(story: &mut Story, at: u64) {
    story.arrives(at);
    let entry = Payload::Conntrack(entry_of(PORT));
    story.returns(at + 1, Hook::NatSetup, NF_ACCEPT, entry.clone());
    on_node(story, at + 2, Hook::CtConfirm, translated(PORT), entry);
    story.reaches_pod(at + 3);
}

/// A SYN that follows the path of the first one.
fn pinned(story: &mut Story, at: u64) {
    story.arrives(at);
    story.reaches_pod(at + 1);
}

/// The rules were read at these times, and none led to the pod.
fn nowhere(story: &mut Story, times: &[u64]) {
    let backend = translated(PORT).destination();
    let times = VecDeque::from(times.to_vec());
    story.facts.unreachable_by_rule.insert((NODE, backend), times);
}

#[test]
fn a_syn_to_a_pod_that_no_rule_leads_to_is_pinned_by_an_old_entry() {
    let mut story = Story::new();
    chosen(&mut story, MS);
    pinned(&mut story, 1000 * MS);
    pinned(&mut story, 3000 * MS);
    nowhere(&mut story, &[1001 * MS, 3012 * MS]);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ConntrackPinned))
    );
    assert!(has(&diagnosis, "rules-to-backend", "none, 12 ms after"));
    assert!(has(&diagnosis, "syn-sent-to", "10.244.1.2:8080"));
}

#[test]
fn rules_read_at_another_time_prove_nothing() {
    let mut story = Story::new();
    chosen(&mut story, MS);
    pinned(&mut story, 1000 * MS);
    // The endpoint was removed later.
    nowhere(&mut story, &[2500 * MS]);
    assert_eq!(story.only().2.cause, Some(Cause::BackendSilent));
}

#[test]
fn a_syn_that_traversed_the_rules_is_not_pinned() {
    let mut story = Story::new();
    chosen(&mut story, MS);
    nowhere(&mut story, &[2 * MS]);
    assert_eq!(story.only().2.cause, Some(Cause::BackendSilent));
    // Nor is one that something other than conntrack translated.
    let mut story = Story::new();
    pinned(&mut story, MS);
    pinned(&mut story, 1000 * MS);
    nowhere(&mut story, &[1001 * MS]);
    assert_eq!(story.only().2.cause, Some(Cause::BackendSilent));
}

#[test]
fn nothing_is_proven_where_rule_traversal_is_not_visible() {
    let mut story = Story::new();
    chosen(&mut story, MS);
    pinned(&mut story, 1000 * MS);
    nowhere(&mut story, &[1001 * MS]);
    story.facts.absent.insert(Hook::NatSetup);
    assert_eq!(story.only().2.cause, Some(Cause::BackendSilent));
}

#[test]
fn a_new_syn_from_the_same_port_matches_the_entry_too() {
    let mut story = Story::new();
    story.arrives(MS);
    let entry = Payload::Conntrack(entry_of(PORT));
    on_node(&mut story, MS + 1, Hook::DevStartXmit, translated(PORT), entry);
    story.reaches_pod(MS + 2);
    nowhere(&mut story, &[2 * MS]);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ConntrackPinned))
    );
    assert!(has(
        &diagnosis,
        "conntrack-entry",
        "TCP state SYN_SENT, not answered"
    ));
}

#[test]
fn each_such_syn_causes_one_read_of_the_rules() {
    let mut story = Story::new();
    let heard = |story: &mut Story| {
        let mut count = 0;
        story.engine.take_bypassing_rules(|_| count += 1);
        count
    };
    chosen(&mut story, MS);
    assert_eq!(heard(&mut story), 0);
    pinned(&mut story, 1000 * MS);
    assert_eq!((heard(&mut story), heard(&mut story)), (1, 0));
    pinned(&mut story, 3000 * MS);
    assert_eq!(heard(&mut story), 1);
    story.served(PATIENCE + 3000 * MS);
    assert_eq!(heard(&mut story), 0);
}

/// A filter in the forward chain with one rule that drops.
fn filter(matches_invalid: bool) -> NetnsFacts {
    NetnsFacts {
        chains: vec![Chain {
            family: Family::Ip,
            table: "filter".to_owned(),
            name: "FORWARD".to_owned(),
            handle: 1,
            base: Some(Base {
                hook: FORWARD,
                priority: 0,
                kind: "filter".to_owned(),
                policy: Some(Policy::Accept),
            }),
        }],
        rules: vec![Rule {
            family: Family::Ip,
            table: "filter".to_owned(),
            chain: "FORWARD".to_owned(),
            handle: 12,
            number: 1,
            comment: None,
            decides: Decides::Verdict(Verdict::Drop),
            dport: None,
            has_destination: false,
            matches_invalid,
            translation: None,
            key: None,
            conditions: Conditions::default(),
        }],
        ..NetnsFacts::default()
    }
}

/// The pod's answer is dropped on the node by that rule.
fn answer_dropped(matches_invalid: bool, is_invalid: bool) -> Option<Cause> {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, filter(matches_invalid));
    chosen(&mut story, MS);
    story.listener_accepts(5 * MS);
    let answer = translated(PORT).reversed();
    let mut see = |at: u64, hook: Hook, netns: u32, what: Payload, verdict: Option<i32>| {
        let mut event = story.event(at, hook, Part::SynAck, answer, netns, what);
        if let Some(verdict) = verdict {
            event.phase = record::Phase::Return;
            event.verdict = verdict;
        }
        story.engine.push(event);
    };
    see(6 * MS, Hook::DevStartXmit, 2, Payload::Packet, None);
    see(7 * MS, Hook::NetifReceive, NODE, Payload::Packet, None);
    if is_invalid {
        see(8 * MS, Hook::CtIn, NODE, Payload::Packet, Some(NF_ACCEPT));
    }
    let mut dropped = record::Chain {
        nf_hook: FORWARD,
        family: 2,
        seen: chain::IMMEDIATE,
        code: NF_DROP,
        rule: NftRule { handle: 12, next: 0 },
        ..record::Chain::default()
    };
    dropped.table[..6].copy_from_slice(b"filter");
    dropped.chain[..7].copy_from_slice(b"FORWARD");
    see(
        9 * MS,
        Hook::NftDoChain,
        NODE,
        Payload::Chain(dropped),
        Some(NF_DROP),
    );
    let freed = record::Drop {
        location: 0x1234,
        reason: u32::MAX,
        reserved: 0,
    };
    see(10 * MS, Hook::KfreeSkb, NODE, Payload::Drop(freed), None);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::ReturnDropped))
    );
    let inner = diagnosis.inner?;
    assert!(has(&diagnosis, "inner-cause", inner.name()));
    Some(inner)
}

#[test]
fn an_answer_without_a_conntrack_entry_is_invalid_if_the_rule_matches_invalid() {
    assert_eq!(answer_dropped(true, true), Some(Cause::ConntrackInvalid));
    for (matches_invalid, is_invalid) in [(true, false), (false, true), (false, false)] {
        let inner = answer_dropped(matches_invalid, is_invalid);
        assert_eq!(inner, Some(Cause::NetfilterRuleDropped));
    }
}

#[test]
fn a_pinned_syn_that_costs_the_most_time_explains_a_stall() {
    let stalled = |read: u64| {
        let mut story = Story::new();
        chosen(&mut story, MS);
        pinned(&mut story, 1000 * MS);
        pinned(&mut story, 3000 * MS);
        nowhere(&mut story, &[read]);
        story.answered(3100 * MS);
        story.acknowledged(3101 * MS);
        let (_, fate, diagnosis) = story.only();
        assert_eq!(fate, Fate::Stalled);
        diagnosis.cause
    };
    assert_eq!(stalled(1001 * MS), Some(Cause::ConntrackPinned));
    // The rules changed only later.
    assert_ne!(stalled(9000 * MS), Some(Cause::ConntrackPinned));
}

#[test]
fn an_established_connection_to_a_pod_that_no_rule_leads_to_is_pinned() {
    let established = |read: u64| {
        let mut story = Story::new();
        story.arrives(MS);
        on_node(
            &mut story,
            MS + 1,
            Hook::DevStartXmit,
            translated(PORT),
            Payload::Conntrack(entry_of(PORT)),
        );
        story.reaches_pod(MS + 2);
        nowhere(&mut story, &[read]);
        story.answered(3 * MS);
        story.acknowledged(4 * MS);
        let (_, fate, diagnosis) = story.only();
        assert_eq!(fate, Fate::Established);
        diagnosis.cause
    };
    assert_eq!(established(2 * MS), Some(Cause::ConntrackPinned));
    assert_eq!(established(9000 * MS), None);
}
