//! SYNs that do not arrive: routing loops, expired TTLs, namespaces that only forward.

mod story;

use std::net::IpAddr;

use story::{MS, NODE, POD, Story, has, translated};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{
        link::Link,
        route::{Route, RouteEntry},
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{Arrival, Icmp},
    tcp::Part,
};

const ROUTER: u32 = POD;

fn arrival(ttl: u32) -> Payload {
    Payload::Arrival(Arrival { ttl, reserved: 0 })
}

/// The translated SYN comes into a namespace with this TTL.
fn comes(story: &mut Story, at: u64, netns: u32, ttl: u32) {
    let tuple = translated(story.port);
    story.see(at, Hook::NetifReceive, Part::Syn, tuple, netns, arrival(ttl));
}

/// The translated SYN leaves a namespace.
fn leaves(story: &mut Story, at: u64, netns: u32) {
    let tuple = translated(story.port);
    story.packet(at, Hook::DevStartXmit, Part::Syn, tuple, netns);
}

/// The kernel reports that the SYN's TTL expired, and frees it.
fn ends(story: &mut Story, at: u64, netns: u32) {
    let icmp = Icmp {
        icmp_type: 11,
        code: 0,
    };
    let tuple = translated(story.port);
    story.see(at, Hook::IcmpSend, Part::Syn, tuple, netns, Payload::Icmp(icmp));
    if netns == POD {
        story.dropped_in_pod(at + 1);
    }
}

#[test]
fn a_syn_that_goes_round_until_its_ttl_ends() {
    let mut story = Story::new();
    let link = Link {
        index: 2,
        name: "eth1".to_owned(),
        ..Link::default()
    };
    story.facts.netns.entry(ROUTER).or_default().links.push(link);
    story.arrives(MS);
    leaves(&mut story, MS + 1, NODE);
    for round in 0..3 {
        let at = MS + 10 + u64::from(round) * 10;
        comes(&mut story, at, ROUTER, 5 - round * 2);
        if round == 2 {
            ends(&mut story, at + 1, ROUTER);
            break;
        }
        leaves(&mut story, at + 1, ROUTER);
        comes(&mut story, at + 2, NODE, 4 - round * 2);
        leaves(&mut story, at + 3, NODE);
    }
    let (_, fate, diagnosis) = story.only();
    // The client got the error and sent no second SYN.
    assert_eq!((fate, diagnosis.cause), (Fate::Refused, Some(Cause::RouteLoop)));
    let advice = advice(&diagnosis);
    assert!(advice.contains("ip route get 10.244.1.2`"), "{advice}");
    assert!(advice.contains("the other end of eth1"), "{advice}");
    assert!(has(&diagnosis, "came-back", "3 times"));
    assert!(has(&diagnosis, "came-back", "TTL 5, 3"));
}

#[test]
fn a_single_return_is_no_loop() {
    let mut story = Story::new();
    story.arrives(MS);
    leaves(&mut story, MS + 1, NODE);
    comes(&mut story, MS + 2, ROUTER, 63);
    leaves(&mut story, MS + 3, ROUTER);
    comes(&mut story, MS + 4, NODE, 62);
    leaves(&mut story, MS + 5, NODE);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::BackendSilent));
}

#[test]
fn the_same_ttl_twice_is_no_loop() {
    let mut story = Story::new();
    story.arrives(MS);
    // A copy of the frame, and a tracer that read no TTL.
    for at in [MS + 10, MS + 20, MS + 30] {
        leaves(&mut story, at, NODE);
        comes(&mut story, at + 1, ROUTER, 63);
        leaves(&mut story, at + 2, ROUTER);
    }
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::BackendSilent));
}

#[test]
fn a_ttl_that_ends_on_the_way() {
    let mut story = Story::new();
    story.arrives(MS);
    leaves(&mut story, MS + 1, NODE);
    comes(&mut story, MS + 2, ROUTER, 1);
    ends(&mut story, MS + 3, ROUTER);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::RouteTtlExceeded))
    );
    assert!(has(&diagnosis, "ttl", "1 when it came in"));
    assert!(has(&diagnosis, "icmp-error", "TTL exceeded"));
    assert!(advice(&diagnosis).contains("only TTL 1 left"), "{diagnosis:?}");
    assert!(advice(&diagnosis).contains("net.ipv4.ip_default_ttl"));
    assert_eq!(flow.sent().count(), 1);
}

#[test]
fn a_client_that_retransmits_did_not_get_the_error() {
    let mut story = Story::new();
    for at in [MS, 1_001 * MS] {
        story.arrives(at);
        leaves(&mut story, at + 1, NODE);
        comes(&mut story, at + 2, ROUTER, 40);
        ends(&mut story, at + 3, ROUTER);
    }
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::RouteTtlExceeded))
    );
    // It had used up some of its TTL.
    assert!(
        advice(&diagnosis).contains("`traceroute -n 10.244.1.2`"),
        "{diagnosis:?}"
    );
}

fn advice(diagnosis: &Diagnosis) -> &str {
    diagnosis.advice.as_deref().expect("advice")
}

/// The route that the router's namespace has to the backend.
fn knows(story: &mut Story, kind: u8) {
    let route = RouteEntry {
        kind,
        device: Some("eth1".to_owned()),
        gateway: None,
    };
    let address = IpAddr::from([10, 244, 1, 2]);
    story.facts.routes.insert((ROUTER, address), Route::Found(route));
}

#[test]
fn a_namespace_that_forwards_is_not_the_backend() {
    for (kind, words) in [
        (2, "was delivered to the backend 10.244.1.2:8080"),
        (1, "does not have the address 10.244.1.2"),
    ] {
        let mut story = Story::new();
        story.arrives(MS);
        story.reaches_pod(MS + 1);
        knows(&mut story, kind);
        let (_, _, diagnosis) = story.only();
        assert_eq!(diagnosis.cause, Some(Cause::BackendSilent));
        assert!(diagnosis.explanation.contains(words), "{}", diagnosis.explanation);
    }
    let mut story = Story::new();
    story.arrives(MS);
    story.reaches_pod(MS + 1);
    leaves(&mut story, MS + 5, ROUTER);
    let (_, _, diagnosis) = story.only();
    assert!(
        diagnosis.explanation.contains("was forwarded and left through"),
        "{}",
        diagnosis.explanation
    );
}
