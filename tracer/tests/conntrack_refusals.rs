//! SYNs that conntrack or NAT drops.

mod story;

use std::net::IpAddr;

use story::{MS, Story, entry, has};
use tracer::{
    decode::event::{Event, Payload},
    diagnose::{Diagnosis, cause::Cause},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{Clash, Conntrack, IpvsConn, Phase, conntrack},
    tcp::Part,
    tuple::{Addr, Tuple},
    uapi::verdict::{NF_DROP, NF_STOLEN},
};

const ENOMEM: i32 = -12;

fn outcome(mut story: Story) -> (Fate, Option<Cause>, Diagnosis) {
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis.cause, diagnosis)
}

fn tuple(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Tuple {
    let addr = |ip: [u8; 4]| Addr::from(IpAddr::from(ip));
    Tuple {
        saddr: addr(from.0),
        sport: from.1,
        daddr: addr(to.0),
        dport: to.1,
    }
}

const NODE: ([u8; 4], u16) = ([10, 0, 0, 1], 30_080);
const POD: ([u8; 4], u16) = ([10, 244, 1, 2], 8080);
const MASQUERADED: ([u8; 4], u16) = ([10, 244, 1, 1], 50_001);

/// The entry of a client's connection, masqueraded.
fn ct(port: u16, status: u32, tcp_state: u32) -> Conntrack {
    Conntrack {
        ct: 0x7000 + u64::from(port),
        original: tuple(([10, 0, 0, 2], port), NODE),
        reply: tuple(POD, MASQUERADED),
        status,
        tcp_state,
    }
}

const TRANSLATED: u32 = conntrack::SRC_NAT | conntrack::SRC_NAT_DONE;
const ANSWERED: u32 = TRANSLATED | conntrack::CONFIRMED | conntrack::SEEN_REPLY;

/// conntrack cannot insert the SYN's entry; `clash` is the entry in the way, if any.
fn not_inserted(wanted: Conntrack, clash: Option<Clash>) -> Story {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        story.lookup(MS + 2, IpvsConn::default());
        story.schedules(MS + 3, 1);
        let conn = IpvsConn {
            conn: 0x9000,
            ..entry(3, 1, 1, 0)
        };
        story.syn(MS + 4, Hook::IpvsNatXmit, Payload::IpvsConn(conn));
        let confirm = story.event(
            MS + 5,
            Hook::CtConfirm,
            Part::Syn,
            wanted.reply.reversed(),
            1,
            Payload::Conntrack(wanted),
        );
        story.engine.push(confirm.clone());
        if let Some(clash) = clash {
            story.syn(MS + 6, Hook::CtClash, Payload::Clash(Box::new(clash)));
        }
        story.engine.push(Event {
            phase: Phase::Return,
            verdict: NF_DROP,
            payload: Payload::Packet,
            time_ns: MS + 7,
            ..confirm
        });
        story.dropped(MS + 8);
    });
    story
}

fn clash(holder: Conntrack, direction: u32, status: u32) -> Clash {
    Clash {
        holder,
        direction,
        status,
    }
}

#[test]
fn a_source_port_held_by_an_answered_connection_means_nat_ran_out_of_ports() {
    let holder = ct(41_000, ANSWERED, 3);
    let story = not_inserted(ct(40_001, TRANSLATED, 1), Some(clash(holder, 1, TRANSLATED)));
    let (fate, cause, diagnosis) = outcome(story);
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::NatPortExhausted)));
    assert!(
        has(&diagnosis, "clashing-state", "ESTABLISHED, answered"),
        "{diagnosis:?}"
    );
    assert!(has(&diagnosis, "wanted-tuple", "10.244.1.1:50001"));
    assert!(diagnosis.explanation.contains("10.0.0.2:41000"), "{diagnosis:?}");
}

#[test]
fn a_possible_race_is_not_reported_as_a_lack_of_ports() {
    let wanted = ct(40_001, TRANSLATED, 1);
    let answered = ct(41_000, ANSWERED, 3);
    for (why, clash) in [
        // The connection that won a race has no reply yet.
        (
            "not answered",
            Some(clash(
                ct(41_000, TRANSLATED | conntrack::CONFIRMED, 1),
                1,
                TRANSLATED,
            )),
        ),
        // NAT did not choose the source.
        ("no NAT", Some(clash(answered, 1, 0))),
        // The clash is in the original direction, whose tuple the client chose.
        ("original direction", Some(clash(answered, 0, TRANSLATED))),
        // Two SYNs of the same connection.
        (
            "the same connection",
            Some(clash(ct(40_001, ANSWERED, 3), 1, TRANSLATED)),
        ),
        ("not seen", None),
    ] {
        let (fate, cause, _) = outcome(not_inserted(wanted, clash));
        assert_eq!(
            (fate, cause),
            (Fate::Dropped, Some(Cause::ConntrackInsertFailed)),
            "{why}"
        );
    }
}

/// The SYN gets no entry and is dropped at prerouting.
fn no_entry(table_full: bool) -> Story {
    let mut story = Story::new();
    story.arrives(MS);
    if table_full {
        story.returns(MS + 1, Hook::CtEarlyDrop, 0, Payload::Packet);
    }
    story.returns(MS + 1, Hook::CtAlloc, ENOMEM, Payload::Packet);
    story.dropped(MS + 2);
    story
}

#[test]
fn a_full_table_and_a_lack_of_memory_are_different_causes() {
    let (fate, cause, _) = outcome(no_entry(true));
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::ConntrackTableFull)));
    assert_eq!(outcome(no_entry(false)).1, Some(Cause::Unknown));
}

#[test]
fn a_table_that_was_seen_full_only_for_a_later_syn_explains_the_first_one_too() {
    // The hooks are attached only after a packet was dropped.
    let mut story = Story::new();
    story.arrives(MS);
    story.dropped(MS + 2);
    story.arrives(1_001 * MS);
    story.returns(1_001 * MS + 1, Hook::CtEarlyDrop, 0, Payload::Packet);
    story.returns(1_001 * MS + 1, Hook::CtAlloc, ENOMEM, Payload::Packet);
    story.dropped(1_001 * MS + 2);
    story.served(3_001 * MS);
    let (fate, cause, _) = outcome(story);
    assert_eq!((fate, cause), (Fate::Stalled, Some(Cause::ConntrackTableFull)));
}

#[test]
fn a_device_without_an_address_and_the_masquerade_rule_are_different_causes() {
    for masquerade_failed in [true, false] {
        let mut story = Story::new();
        story.arrives(MS);
        story.ipvs(MS + 1, NF_STOLEN, |story| {
            story.lookup(MS + 2, IpvsConn::default());
            story.schedules(MS + 3, 1);
            let conn = IpvsConn {
                conn: 0x9000,
                ..entry(3, 1, 1, 0)
            };
            story.syn(MS + 4, Hook::IpvsNatXmit, Payload::IpvsConn(conn));
            if masquerade_failed {
                story.returns(MS + 5, Hook::NatMasquerade, NF_DROP, Payload::Packet);
            }
            story.dropped_by_rule(MS + 6);
        });
        let expected = if masquerade_failed {
            Cause::NatNoAddress
        } else {
            Cause::NetfilterRuleDropped
        };
        assert_eq!(outcome(story).1, Some(expected));
    }
}
