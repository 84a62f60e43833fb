//! SYNs during which only the hooks at rest were attached: what those show is named, and nothing else is.

mod story;

use std::net::SocketAddr;

use tracer::{
    diagnose::cause::Cause,
    facts::{
        NetnsFacts,
        ipvs::{Listens, Service},
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{IpvsConn, ipvs_conn},
    tcp::Part,
};

use self::story::{MS, NODE, POD, Story, entry, has, original, translated};
use tracer::decode::event::{Event, Payload};

/// A node with IPVS at depth light, until all hooks are attached at `until_ns`.
fn light(until_ns: Option<u64>) -> Story {
    let mut story = Story::new();
    let node = SocketAddr::from(([10, 0, 0, 1], 30_080));
    let service = Service {
        listens: Listens::Address {
            protocol: 6,
            address: node,
        },
        scheduler: "rr".to_owned(),
        persistent: None,
        one_packet: false,
        real_servers: Vec::new(),
    };
    let netns = NetnsFacts {
        services: vec![service],
        sysctls: [("net.ipv4.vs.drop_packet".to_owned(), "0".to_owned())]
            .into_iter()
            .collect(),
        ..NetnsFacts::default()
    };
    story.facts.netns.insert(NODE, netns);
    story.facts.symbols.insert(0x1234, "nf_hook_slow+0xc3".to_owned());
    story.facts.gaps.begin(0);
    if let Some(until_ns) = until_ns {
        story.facts.gaps.end(until_ns);
    }
    story.engine.set_gaps(&story.facts.gaps);
    story
}

/// IPVS expires an entry with the tuple of the SYN, on a CPU.
fn expires(story: &mut Story, at: u64, conn: IpvsConn, cpu: u16) {
    let event = story.event(
        at,
        Hook::IpvsExpireNow,
        Part::Syn,
        original(story.port),
        0,
        Payload::IpvsConn(conn),
    );
    story.engine.push(Event { skb: 0, cpu, ..event });
}

/// A SYN that IPVS schedules and the pod answers, as the hooks at rest show it.
fn served(story: &mut Story, at: u64) {
    story.arrives(at);
    schedules(story, at + 1);
    story.listener_accepts(at + 2);
    let answer = translated(story.port).reversed();
    story.packet(at + 3, Hook::NetifReceive, Part::SynAck, answer, NODE);
    story.acknowledged(at + 4);
}

fn schedules(story: &mut Story, at: u64) {
    let conn = IpvsConn {
        conn: 0x9000,
        ..entry(3, 1, 1, 0)
    };
    story.returns(at, Hook::IpvsSchedule, 0, Payload::IpvsConn(conn));
}

fn reused(change: impl FnOnce(&mut Story), cpu: u16) -> Option<Cause> {
    let mut story = light(None);
    story.arrives(MS);
    change(&mut story);
    expires(&mut story, MS + 3, entry(ipvs_conn::TIME_WAIT, 1, 1, 0), cpu);
    story.dropped(MS + 4);
    served(&mut story, 1_001 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Stalled);
    assert!(
        has(&diagnosis, "dropped-in", "nf_hook_slow") || diagnosis.cause.is_none(),
        "{diagnosis:?}"
    );
    diagnosis.cause
}

#[test]
fn a_reused_port_is_named_from_the_first_syn_on() {
    assert_eq!(reused(|_| (), 0), Some(Cause::IpvsReuseDropped));
}

#[test]
fn an_expiry_that_something_else_explains_proves_nothing() {
    assert_eq!(reused(|_| (), 1), Some(Cause::Unknown), "on another CPU");
    let scheduled = reused(|story| schedules(story, MS + 1), 0);
    assert_eq!(scheduled, Some(Cause::Unknown), "scheduled before");
    let set = |story: &mut Story| {
        let netns = story.facts.netns.get_mut(&NODE).expect("the node");
        netns.sysctls = [("net.ipv4.vs.drop_packet".to_owned(), "3".to_owned())]
            .into_iter()
            .collect();
    };
    assert_eq!(reused(set, 0), Some(Cause::Unknown), "drop_packet");
    let removed = |story: &mut Story| {
        let netns = story.facts.netns.get_mut(&NODE).expect("the node");
        netns.services.clear();
    };
    assert_eq!(reused(removed, 0), Some(Cause::Unknown), "the service is gone");
}

#[test]
fn a_new_entry_between_expiry_and_drop_proves_nothing() {
    let mut story = light(None);
    story.arrives(MS);
    expires(&mut story, MS + 1, entry(ipvs_conn::TIME_WAIT, 1, 1, 0), 0);
    schedules(&mut story, MS + 2);
    story.dropped(MS + 3);
    served(&mut story, 1_001 * MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Stalled, Some(Cause::Unknown)));
}

#[test]
fn an_expiry_without_a_drop_is_healthy() {
    let mut story = light(None);
    story.arrives(MS);
    expires(&mut story, MS + 1, entry(ipvs_conn::TIME_WAIT, 1, 1, 0), 0);
    served(&mut story, MS + 2);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
}

#[test]
fn a_draining_server_is_told_from_a_reused_port() {
    let mut story = light(None);
    story.arrives(MS);
    expires(&mut story, MS + 1, entry(ipvs_conn::CLOSE, 0, 1, 1), 0);
    story.dropped(MS + 2);
    served(&mut story, 1_001 * MS);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::IpvsNodestExpired));
}

#[test]
fn silence_that_was_not_watched_is_unknown_with_the_depth() {
    let mut story = light(None);
    story.arrives(MS);
    schedules(&mut story, MS + 1);
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Unanswered, Some(Cause::Unknown)));
    assert!(diagnosis.explanation.contains("--depth full"), "{diagnosis:?}");
    assert!(has(&diagnosis, "depth", "light"));
}

#[test]
fn the_retransmission_that_was_watched_decides() {
    let mut story = light(Some(500 * MS));
    story.arrives(MS);
    story.arrives(1_001 * MS);
    story.reaches_pod(1_002 * MS);
    let (flow, fate, diagnosis) = story.only();
    assert_eq!(fate, Fate::Unanswered);
    assert!(!flow.is_watched(0) && flow.is_watched(1));
    assert_eq!(diagnosis.attempts[0].cause, Some(Cause::Unknown));
    assert!(!diagnosis.explanation.contains("--depth"), "{diagnosis:?}");
}

#[test]
fn a_reset_by_the_pod_refuses_a_client_that_gives_up() {
    let mut story = light(None);
    story.arrives(MS);
    schedules(&mut story, MS + 1);
    let socket = Payload::Socket(tracer_common::record::Socket::default());
    story.see(
        MS + 2,
        Hook::TcpSendReset,
        Part::Syn,
        translated(story.port),
        POD,
        socket,
    );
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::TcpNoListener))
    );
}

#[test]
fn a_reset_by_a_server_of_an_old_entry_is_unknown() {
    let mut story = light(None);
    story.arrives(MS);
    let socket = Payload::Socket(tracer_common::record::Socket::default());
    story.see(
        MS + 2,
        Hook::TcpSendReset,
        Part::Syn,
        translated(story.port),
        POD,
        socket,
    );
    let (_, fate, diagnosis) = story.only();
    assert_eq!((fate, diagnosis.cause), (Fate::Refused, Some(Cause::Unknown)));
}
