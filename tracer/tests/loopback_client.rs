//! Clients on the node that connect from a loopback address.

mod story;

use std::net::IpAddr;

use story::{MS, NODE, Story, entry, has, original};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{
        ipvs::{Listens, Service},
        route::{Route, RouteEntry},
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record,
    tcp::Part,
    tuple::{Addr, Tuple},
    uapi::verdict::NF_STOLEN,
};

const FREED: u64 = 0x1234;

/// IPVS frees the SYN from this address; the route to its real server is of this type.
fn freed(source: [u8; 4], kind: u8, icmp: bool) -> (Fate, Option<Cause>, Diagnosis) {
    let mut story = Story::new();
    story
        .facts
        .symbols
        .insert(FREED, "ip_vs_nat_xmit+0x1b [ip_vs]".to_owned());
    let route = RouteEntry {
        kind,
        device: Some("cali1".to_owned()),
        gateway: None,
    };
    let netns = story.facts.netns.entry(NODE).or_default();
    netns.services = ["127.0.0.1:30080", "10.0.0.9:30080"]
        .map(|address| Service {
            listens: Listens::Address {
                protocol: 6,
                address: address.parse().expect("an address"),
            },
            scheduler: "rr".to_owned(),
            persistent: None,
            one_packet: false,
            real_servers: Vec::new(),
        })
        .into();
    let server = IpAddr::from([10, 244, 1, 2]);
    story.facts.routes.insert((NODE, server), Route::Found(route));
    let tuple = Tuple {
        saddr: Addr::from(IpAddr::from(source)),
        ..original(story.port)
    };
    story.see(MS, Hook::TcpConnect, Part::Syn, tuple, NODE, Payload::Packet);
    story.on_node(MS + 1, Hook::IpvsIn, tuple, Payload::Packet, NF_STOLEN);
    let sent = Payload::IpvsConn(entry(3, 1, 1, 0));
    story.see(MS + 2, Hook::IpvsNatXmit, Part::Syn, tuple, NODE, sent);
    if icmp {
        let unreachable = record::Icmp {
            icmp_type: 3,
            code: 1,
        };
        story.see(
            MS + 3,
            Hook::IcmpSend,
            Part::Syn,
            tuple,
            NODE,
            Payload::Icmp(unreachable),
        );
    }
    let drop = record::Drop {
        location: FREED,
        reason: u32::MAX,
        reserved: 0,
    };
    story.see(MS + 4, Hook::KfreeSkb, Part::Syn, tuple, 0, Payload::Drop(drop));
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis.cause, diagnosis)
}

#[test]
fn a_loopback_source_may_not_leave_the_node() {
    let (fate, cause, diagnosis) = freed([127, 0, 0, 1], 1, false);
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::IpvsLoopbackClient)));
    assert!(has(&diagnosis, "source", "127.0.0.1"));
    assert!(
        has(&diagnosis, "dropped-at", "no device yet, netns 1"),
        "{diagnosis:?}"
    );
    let advice = diagnosis.advice.expect("advice");
    assert!(
        advice.starts_with("Connect to 10.0.0.9:30080 instead of 10.0.0.1:30080"),
        "{advice}"
    );
}

#[test]
fn another_source_and_a_local_real_server_are_other_matters() {
    assert_eq!(freed([10, 0, 0, 1], 1, false).1, Some(Cause::Unknown));
    assert_eq!(freed([127, 0, 0, 1], 2, false).1, Some(Cause::Unknown));
    assert_ne!(freed([127, 0, 0, 1], 1, true).1, Some(Cause::IpvsLoopbackClient));
}
