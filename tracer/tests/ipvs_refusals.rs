//! SYNs that IPVS drops or rejects, for reasons other than an old entry.

mod story;

use story::{MS, Story, entry, has};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{
        NetnsFacts,
        ipvs::{Listens, RealServer, Service},
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{
        self, IpvsConn, IpvsDest, IpvsDests, IpvsLimits, IpvsService, ipvs_conn, ipvs_dest, ipvs_limits,
    },
    uapi::verdict::{NF_DROP, NF_STOLEN},
};

const NEW: u64 = 0x9000;

fn outcome(mut story: Story) -> (Fate, Option<Cause>, Diagnosis) {
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis.cause, diagnosis)
}

/// The service as `/proc/net/ip_vs` prints it, with a real server for each weight.
fn printed(story: &mut Story, weights: &[i32], persistent: Option<u32>) {
    let server = |(nth, &weight): (usize, &i32)| RealServer {
        address: format!("10.244.{}.2:8080", nth + 1).parse().expect("an address"),
        forward: "Masq".to_owned(),
        weight,
        active: 0,
        inactive: 0,
    };
    let service = Service {
        listens: Listens::Address {
            protocol: 6,
            address: "10.0.0.1:30080".parse().expect("an address"),
        },
        scheduler: "rr".to_owned(),
        persistent,
        one_packet: false,
        real_servers: weights.iter().enumerate().map(server).collect(),
    };
    story.facts.netns.insert(
        1,
        NetnsFacts {
            services: vec![service],
            ..NetnsFacts::default()
        },
    );
}

/// The scheduler is called for a service with this many real servers.
fn calls_scheduler(story: &mut Story, at: u64, num_dests: u32) {
    let service = IpvsService {
        service: 1,
        num_dests,
        ..IpvsService::default()
    };
    story.syn(at, Hook::IpvsSchedule, Payload::IpvsService(service));
}

/// A SYN that IPVS drops in `tcp_conn_schedule`, after the events of `inside`.
fn dropped_in_scheduling(limits: IpvsLimits, inside: impl FnOnce(&mut Story)) -> Story {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_DROP, |story| {
        story.lookup(MS + 2, IpvsConn::default());
        inside(story);
        story.returns(MS + 8, Hook::IpvsTcpSchedule, 0, Payload::IpvsLimits(limits));
        story.schedules(MS + 8, 0);
    });
    story.dropped(MS + 9);
    story
}

#[test]
fn a_syn_that_is_dropped_before_scheduling_is_dropped_by_the_defense() {
    let limits = IpvsLimits {
        have: ipvs_limits::DROP_RATE,
        drop_rate: 3,
        ..IpvsLimits::default()
    };
    let (fate, cause, diagnosis) = outcome(dropped_in_scheduling(limits, |_| ()));
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::IpvsDefenseDrop)));
    assert!(has(&diagnosis, "ipvs-drop-rate", "one in 3"), "{diagnosis:?}");
    // If the rate cannot be read, the calls prove it.
    let story = dropped_in_scheduling(IpvsLimits::default(), |_| ());
    assert_eq!(outcome(story).1, Some(Cause::IpvsDefenseDrop));
}

#[test]
fn a_defense_that_is_off_drops_nothing() {
    let limits = IpvsLimits {
        have: ipvs_limits::DROP_RATE,
        ..IpvsLimits::default()
    };
    assert_eq!(
        outcome(dropped_in_scheduling(limits, |_| ())).1,
        Some(Cause::Unknown)
    );
}

#[test]
fn an_entry_that_cannot_be_created_names_the_limit_that_is_reached() {
    let limits = IpvsLimits {
        have: ipvs_limits::CONN_COUNT | ipvs_limits::CONN_MAX,
        conn_count: 7,
        conn_max: 7,
        ..IpvsLimits::default()
    };
    let creates_no_entry = |story: &mut Story| {
        calls_scheduler(story, MS + 3, 1);
        story.returns(
            MS + 4,
            Hook::IpvsSchedule,
            0,
            Payload::IpvsConn(IpvsConn::default()),
        );
    };
    let (fate, cause, diagnosis) = outcome(dropped_in_scheduling(limits, creates_no_entry));
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::IpvsConnAllocFailed)));
    assert!(has(&diagnosis, "ipvs-conn-max", "7"));
    assert!(diagnosis.explanation.contains("conn_max: 7"), "{diagnosis:?}");
    // Below the limit, or without one, memory ran out.
    let (_, cause, diagnosis) = outcome(dropped_in_scheduling(IpvsLimits::default(), creates_no_entry));
    assert_eq!(cause, Some(Cause::IpvsConnAllocFailed));
    assert!(diagnosis.explanation.contains("out of memory"), "{diagnosis:?}");
}

#[test]
fn scheduling_without_a_visible_result_is_not_a_lack_of_entries() {
    let story = dropped_in_scheduling(IpvsLimits::default(), |story| calls_scheduler(story, MS + 3, 1));
    assert_eq!(outcome(story).1, Some(Cause::Unknown));
}

fn dest(nth: u8, weight: i32, overloaded: bool) -> IpvsDest {
    IpvsDest {
        addr: std::net::IpAddr::from([10, 244, nth, 2]).into(),
        port: 8080,
        have: ipvs_dest::WEIGHT | ipvs_dest::FLAGS | ipvs_dest::CONNS | ipvs_dest::UPPER,
        weight,
        flags: if overloaded { ipvs_dest::OVERLOAD } else { 0 },
        conns: 1,
        upper: 1,
    }
}

/// The scheduler finds no server among these; `num_dests` and `complete` are what the kernel reports of its list.
fn no_server_fits(dests: &[IpvsDest], num_dests: u32, complete: u32) -> Story {
    let mut all = IpvsDests {
        counted: u32::try_from(dests.len()).expect("a few"),
        complete,
        ..IpvsDests::default()
    };
    for (slot, dest) in all.listed.iter_mut().zip(dests) {
        *slot = *dest;
        if dest.weight > 0 {
            all.with_weight += 1;
            all.overloaded += u32::from(dest.flags & ipvs_dest::OVERLOAD != 0);
        }
    }
    dropped_in_scheduling(IpvsLimits::default(), |story| {
        calls_scheduler(story, MS + 3, num_dests);
        story.returns(
            MS + 4,
            Hook::IpvsSchedule,
            0,
            Payload::IpvsConn(IpvsConn::default()),
        );
        let service = IpvsService {
            service: 1,
            num_dests,
            ..IpvsService::default()
        };
        story.syn(MS + 5, Hook::IpvsLeave, Payload::IpvsService(service));
        story.syn(MS + 5, Hook::IpvsLeave, Payload::IpvsDests(Box::new(all)));
        let icmp = record::Icmp {
            icmp_type: 3,
            code: 3,
        };
        story.syn(MS + 6, Hook::IcmpSend, Payload::Icmp(icmp));
    })
}

#[test]
fn overloaded_servers_and_draining_servers_are_different_causes() {
    let full = [dest(1, 1, true), dest(2, 0, false)];
    let (fate, cause, diagnosis) = outcome(no_server_fits(&full, 2, 1));
    assert_eq!((fate, cause), (Fate::Refused, Some(Cause::IpvsDestOverloaded)));
    assert!(
        has(&diagnosis, "real-server", "10.244.1.2:8080, overloaded"),
        "{diagnosis:?}"
    );

    let draining = [dest(1, 0, false), dest(2, 0, true)];
    assert_eq!(
        outcome(no_server_fits(&draining, 2, 1)).1,
        Some(Cause::IpvsNoDestination)
    );
}

#[test]
fn draining_servers_are_counted_in_singular_and_plural() {
    let explanation = |servers: &[IpvsDest]| {
        let number = u32::try_from(servers.len()).expect("a few");
        outcome(no_server_fits(servers, number, 1)).2.explanation
    };
    let one = explanation(&[dest(1, 0, false)]);
    assert!(one.contains("has 1 real server and it is draining"), "{one}");
    let two = explanation(&[dest(1, 0, false), dest(2, 0, true)]);
    assert!(two.contains("has 2 real servers and all are draining"), "{two}");
}

#[test]
fn a_scheduler_that_refuses_this_client_is_named_with_its_reason() {
    // Source hashing considers only one server.
    let one_fits = [dest(1, 0, false), dest(2, 1, false)];
    for (scheduler, why) in [
        ("sh", "has no fallback"),
        ("mh", "has no fallback"),
        ("ovf", "more active connections"),
        ("rr", "tracer could not identify the reason"),
    ] {
        let mut story = no_server_fits(&one_fits, 2, 1);
        printed(&mut story, &[0, 1], None);
        let known = story.facts.netns.get_mut(&1).expect("a netns");
        scheduler.clone_into(&mut known.services[0].scheduler);
        let (fate, cause, diagnosis) = outcome(story);
        assert_eq!((fate, cause), (Fate::Refused, Some(Cause::IpvsNoDestination)));
        assert!(
            diagnosis.explanation.contains("1 of 2 real servers is usable")
                && diagnosis.explanation.contains(why),
            "{diagnosis:?}"
        );
        assert!(has(&diagnosis, "ipvs-scheduler-result", scheduler));
    }
}

#[test]
fn a_list_of_servers_that_was_read_in_part_leaves_the_cause_unknown() {
    // A list that was read only in part proves nothing.
    let full = [dest(1, 1, true)];
    assert_eq!(outcome(no_server_fits(&full, 1, 0)).1, Some(Cause::Unknown));
    assert_eq!(outcome(no_server_fits(&full, 2, 1)).1, Some(Cause::Unknown));
}

#[test]
fn without_a_server_count_the_servers_must_be_those_of_proc_net_ip_vs() {
    let full = [dest(1, 1, true), dest(2, 1, true)];
    let mut story = no_server_fits(&full, u32::MAX, 1);
    assert_eq!(story.only().2.cause, Some(Cause::Unknown));
    let mut story = no_server_fits(&full, u32::MAX, 1);
    printed(&mut story, &[1, 1], None);
    assert_eq!(outcome(story).1, Some(Cause::IpvsDestOverloaded));
    let mut story = no_server_fits(&full, u32::MAX, 1);
    printed(&mut story, &[1], None);
    assert_eq!(outcome(story).1, Some(Cause::Unknown));
    let others = [dest(1, 1, true), dest(7, 1, true)];
    let mut story = no_server_fits(&others, u32::MAX, 1);
    printed(&mut story, &[1, 1], None);
    assert_eq!(outcome(story).1, Some(Cause::Unknown));
}

/// A SYN that gets an entry for a real server of this weight, with or without session affinity. Nothing answers.
fn scheduled_and_silent(weight: i32, controlled: bool, persistent: Option<u32>) -> Story {
    let mut story = Story::new();
    printed(&mut story, &[weight], persistent);
    let mut conn = IpvsConn {
        conn: NEW,
        ..entry(0, weight, 1, 0)
    };
    if controlled {
        conn.have |= ipvs_conn::CONTROL | ipvs_conn::CONTROLLED;
    }
    for at in [MS, 1_001 * MS] {
        story.arrives(at);
        story.ipvs(at + 1, NF_STOLEN, |story| {
            if at == MS {
                story.lookup(at + 2, IpvsConn::default());
                calls_scheduler(story, at + 3, 1);
                story.returns(at + 4, Hook::IpvsSchedule, 0, Payload::IpvsConn(conn));
                story.schedules(at + 4, 1);
            } else {
                story.lookup(at + 2, conn);
            }
            story.syn(at + 5, Hook::IpvsNatXmit, Payload::IpvsConn(conn));
        });
        story.reaches_pod(at + 6);
    }
    story
}

#[test]
fn a_new_entry_for_a_draining_server_comes_from_session_affinity() {
    for (controlled, persistent) in [(true, None), (false, Some(300)), (true, Some(300))] {
        let (fate, cause, diagnosis) = outcome(scheduled_and_silent(0, controlled, persistent));
        assert_eq!((fate, cause), (Fate::Unanswered, Some(Cause::IpvsAffinityStale)));
        assert!(has(&diagnosis, "entry-weight", "0"));
        assert_eq!(has(&diagnosis, "affinity-timeout", "300 s"), persistent.is_some());
    }
    // Its weight may have just changed; without affinity nothing explains why it was chosen.
    assert_eq!(
        outcome(scheduled_and_silent(0, false, None)).1,
        Some(Cause::BackendSilent)
    );
    // A server that does not drain is chosen with or without affinity.
    assert_eq!(
        outcome(scheduled_and_silent(1, true, Some(300))).1,
        Some(Cause::BackendSilent)
    );
}

#[test]
fn an_old_entry_that_only_affinity_keeps_is_its_own_cause() {
    let old = |mode| IpvsConn {
        have: entry(0, 0, 1, 0).have | ipvs_conn::CONTROL | ipvs_conn::CONTROLLED | ipvs_conn::REUSE_MODE,
        conn_reuse_mode: mode,
        ..entry(ipvs_conn::TIME_WAIT, 0, 1, 0)
    };
    for (mode, expected) in [(1, Cause::IpvsAffinityStale), (0, Cause::IpvsReuseStaleBackend)] {
        let mut story = Story::new();
        story.arrives(MS);
        story.ipvs(MS + 1, NF_STOLEN, |story| {
            story.lookup(MS + 2, old(mode));
            story.syn(MS + 3, Hook::IpvsNatXmit, Payload::IpvsConn(old(mode)));
        });
        story.reaches_pod(MS + 4);
        assert_eq!(outcome(story).1, Some(expected));
    }
}

/// A SYN that IPVS cannot transmit: the kernel sends this ICMP error and drops the SYN in this function.
fn not_sent(icmp_type: u32, code: u32, symbol: &str) -> Story {
    not_sent_by(Hook::IpvsNatXmit, (icmp_type, code), symbol)
}

fn not_sent_by(hook: Hook, icmp: (u32, u32), symbol: &str) -> Story {
    let mut story = rejected_and_not_sent(hook, icmp);
    story.facts.symbols.insert(0x1234, symbol.to_owned());
    story.dropped(MS + 6);
    story
}

/// The same, but the drop is not seen.
fn rejected_and_not_sent(hook: Hook, (icmp_type, code): (u32, u32)) -> Story {
    let mut story = Story::new();
    story.arrives(MS);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        story.lookup(MS + 2, IpvsConn::default());
        story.schedules(MS + 3, 1);
        let conn = IpvsConn {
            conn: NEW,
            ..entry(3, 1, 1, 0)
        };
        story.syn(MS + 4, hook, Payload::IpvsConn(conn));
        if (icmp_type, code) == (3, 4) {
            let too_big = record::TooBig { mtu: 50, length: 60 };
            story.syn(MS + 5, Hook::IcmpSend, Payload::TooBig(too_big));
        }
        story.syn(
            MS + 5,
            Hook::IcmpSend,
            Payload::Icmp(record::Icmp { icmp_type, code }),
        );
    });
    story
}

#[test]
fn without_a_visible_drop_only_a_translating_function_could_have_sent_the_error() {
    let cause = |hook| outcome(rejected_and_not_sent(hook, (3, 1))).1;
    assert_eq!(cause(Hook::IpvsNatXmit), Some(Cause::IpvsXmitNoRoute));
    assert_eq!(cause(Hook::IpvsDirectXmit), Some(Cause::Unknown));
    let mut story = rejected_and_not_sent(Hook::IpvsNatXmit, (3, 1));
    story.syn(MS + 7, Hook::CtConfirm, Payload::Packet);
    assert_eq!(outcome(story).1, Some(Cause::Unknown), "it went on");
}

#[test]
fn the_icmp_error_shows_why_ipvs_could_not_transmit() {
    for (icmp_type, code, fate, cause) in [
        (3, 1, Fate::Refused, Cause::IpvsXmitNoRoute),
        (3, 0, Fate::Refused, Cause::IpvsXmitNoRoute),
        (11, 0, Fate::Refused, Cause::IpvsXmitTtl),
        (3, 4, Fate::Dropped, Cause::IpvsXmitMtu),
    ] {
        let (is_fate, is_cause, diagnosis) =
            outcome(not_sent(icmp_type, code, "ip_vs_nat_xmit+0x12 [ip_vs]"));
        assert_eq!(
            (is_fate, is_cause),
            (fate, Some(cause)),
            "ICMP {icmp_type}/{code}"
        );
        assert!(has(&diagnosis, "real-server", "10.244.1.2:8080"));
        assert_eq!(has(&diagnosis, "route-mtu", "50"), cause == Cause::IpvsXmitMtu);
    }
}

#[test]
fn a_syn_that_ipvs_forwards_unmodified_may_have_no_route_either() {
    for (hook, symbol) in [
        (Hook::IpvsDirectXmit, "ip_vs_dr_xmit+0x9e [ip_vs]"),
        (Hook::IpvsTunnelXmit, "ip_vs_tunnel_xmit+0x9e [ip_vs]"),
    ] {
        let (fate, cause, diagnosis) = outcome(not_sent_by(hook, (3, 1), symbol));
        assert_eq!((fate, cause), (Fate::Refused, Some(Cause::IpvsXmitNoRoute)));
        assert!(has(&diagnosis, "real-server", "10.244.1.2:8080"));
    }
}

#[test]
fn the_same_icmp_error_from_another_function_is_not_an_ipvs_transmit_failure() {
    // A rule that rejects, or unresolved ARP/ND.
    for (symbol, cause) in [
        ("nf_hook_slow+0xc3", Cause::Unknown),
        ("neigh_invalidate+0x20", Cause::NeighUnresolved),
    ] {
        assert_eq!(outcome(not_sent(3, 1, symbol)).1, Some(cause), "{symbol}");
    }
    // An ICMP error that ip_vs_nat_xmit never sends.
    assert_eq!(
        outcome(not_sent(3, 13, "ip_vs_nat_xmit+0x12")).1,
        Some(Cause::Unknown)
    );
}
