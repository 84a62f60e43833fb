//! Packets and existing conntrack entries: clients pinned to an old backend, and INVALID packets.

mod story;

use std::collections::VecDeque;

use story::{MS, PATIENCE, Story, has, original, translated};
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
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, Conntrack, IpvsConn, NftRule, PacketState, chain, conntrack, ipvs_conn, packet_state},
    tcp::Part,
    tuple::Tuple,
    uapi::verdict::{NF_ACCEPT, NF_DROP, NF_STOLEN},
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
    // Neither is a SYN that something other than conntrack translated.
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
            dports: None,
            untracks: false,
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
    let diagnosis = answer_dropped_after(&mut story, is_invalid);
    let inner = diagnosis.inner?;
    assert!(has(&diagnosis, "inner-cause", inner.name()));
    Some(inner)
}

/// The pod's answer to what was played so far is dropped on the node.
fn answer_dropped_after(story: &mut Story, is_invalid: bool) -> Diagnosis {
    let answer = translated(PORT).reversed();
    see_dropped(story, Part::SynAck, answer, is_invalid);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::ReturnDropped))
    );
    diagnosis
}

/// The rule drops a packet that comes to the node.
fn see_dropped(story: &mut Story, part: Part, tuple: Tuple, is_invalid: bool) {
    let mut see = |at: u64, hook: Hook, netns: u32, what: Payload, verdict: Option<i32>| {
        let mut event = story.event(at, hook, part, tuple, netns, what);
        if let Some(verdict) = verdict {
            event.phase = record::Phase::Return;
            event.verdict = verdict;
        }
        story.engine.push(event);
    };
    if part == Part::SynAck {
        see(6 * MS, Hook::DevStartXmit, 2, Payload::Packet, None);
    }
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
}

/// The pod's answer is dropped by the rule, at a time when the hook of conntrack is not attached; the packet has this
/// connection.
fn answer_dropped_with_state(matches_invalid: bool, state: PacketState) -> Option<Cause> {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, filter(matches_invalid));
    chosen(&mut story, MS);
    story.listener_accepts(5 * MS);
    let answer = translated(PORT).reversed();
    let state = Payload::PacketState(state);
    story.see(9 * MS, Hook::KfreeSkb, Part::SynAck, answer, NODE, state);
    answer_dropped_after(&mut story, false).inner
}

#[test]
fn a_packet_that_has_no_connection_when_a_rule_drops_it_is_invalid() {
    let none = PacketState::default();
    assert_eq!(
        answer_dropped_with_state(true, none),
        Some(Cause::ConntrackInvalid)
    );
    let untracked = PacketState {
        info: packet_state::UNTRACKED,
        ..none
    };
    let known = PacketState { ct: 1, ..none };
    for (matches_invalid, state) in [(true, untracked), (true, known), (false, none)] {
        let inner = answer_dropped_with_state(matches_invalid, state);
        assert_eq!(inner, Some(Cause::NetfilterRuleDropped));
    }
}

/// conntrack inserts an entry with the SYN, which expects this answer.
fn inserted(story: &mut Story, reply: Tuple) {
    let entry = Payload::Conntrack(Conntrack {
        reply,
        ..entry_of(PORT)
    });
    let mut event = story.event(4 * MS, Hook::CtConfirm, Part::Syn, translated(PORT), NODE, entry);
    event.phase = record::Phase::Return;
    event.verdict = NF_ACCEPT;
    story.engine.push(event);
}

/// A SYN that IPVS sends to the pod, with these flags and settings.
fn sent_by_ipvs(flags: Option<u32>, conntrack: Option<&str>) -> Story {
    let mut story = Story::new();
    let settings = conntrack.map(|value| ("net.ipv4.vs.conntrack".to_owned(), value.to_owned()));
    let known = NetnsFacts {
        sysctls: settings.into_iter().collect(),
        ..filter(true)
    };
    story.facts.netns.insert(NODE, known);
    story.arrives(MS);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        let entry = story::entry(3, 1, 1, 0);
        let conn = IpvsConn {
            have: entry.have | flags.map_or(0, |_| ipvs_conn::FLAGS),
            flags: flags.unwrap_or(0),
            ..entry
        };
        story.syn(MS + 3, Hook::IpvsNatXmit, Payload::IpvsConn(conn));
    });
    story.reaches_pod(MS + 4);
    story.listener_accepts(5 * MS);
    story
}

#[test]
fn the_setting_that_keeps_ipvs_from_tracking_is_the_root_of_an_invalid_answer() {
    const NFCT: u32 = 0x1_0000;
    for (flags, setting, is_root) in [
        (Some(0x100), None, true),
        (None, Some("0"), true),
        (Some(0x100 | NFCT), Some("0"), false),
        (None, Some("1"), false),
        (None, None, false),
    ] {
        let diagnosis = answer_dropped_after(&mut sent_by_ipvs(flags, setting), true);
        assert_eq!(diagnosis.inner, Some(Cause::ConntrackInvalid));
        assert_eq!(
            diagnosis.explanation.contains("net.ipv4.vs.conntrack=0"),
            is_root,
            "{diagnosis:?}"
        );
        let advice = diagnosis.advice.expect("advice");
        assert_eq!(advice.contains("sysctl -w net.ipv4.vs.conntrack=1"), is_root);
    }
}

#[test]
fn an_invalid_packet_shows_which_half_of_the_handshake_conntrack_saw() {
    let answered = |reply: Option<Tuple>| {
        let mut story = Story::new();
        story.facts.netns.insert(NODE, filter(true));
        story.arrives(MS);
        story.reaches_pod(2 * MS);
        story.listener_accepts(3 * MS);
        if let Some(reply) = reply {
            inserted(&mut story, reply);
        }
        answer_dropped_after(&mut story, true)
    };
    let answer = translated(PORT).reversed();
    let half = "syn-conntrack-entry";
    assert!(has(&answered(Some(answer)), half, "inserted with the SYN"));
    assert!(has(&answered(None), half, "none"));
    let elsewhere = Tuple {
        dport: 61_000,
        ..answer
    };
    assert!(has(
        &answered(Some(elsewhere)),
        half,
        "reply 10.244.1.2:8080 -> 10.0.0.2:61000"
    ));
}

#[test]
fn an_ack_whose_syn_ack_bypassed_the_node_meets_an_unreplied_entry() {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, filter(true));
    story.arrives(MS);
    story.reaches_pod(2 * MS);
    story.listener_accepts(3 * MS);
    inserted(&mut story, translated(PORT).reversed());
    let direct = original(PORT).reversed();
    story.packet(5 * MS, Hook::DevStartXmit, Part::SynAck, direct, 2);
    see_dropped(&mut story, Part::Ack, original(PORT), true);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Dropped, Some(Cause::ConntrackInvalid)),
        "{diagnosis:?}"
    );
    assert!(
        has(&diagnosis, "syn-conntrack-entry", "UNREPLIED"),
        "{diagnosis:?}"
    );
    assert!(diagnosis.explanation.contains("only the client's half"));
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
