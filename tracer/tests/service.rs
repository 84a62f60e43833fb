//! SYNs that nothing translated: the node's own TCP refuses or answers them.

mod story;

use story::{LISTENER, MS, NODE, Story, has, original};
use tracer::{
    decode::event::Payload,
    diagnose::{cause::Cause, is_failure},
    facts::{
        NetnsFacts,
        port::{Listener, NamedBefore, ObjectKind, Port, PortObject, Process, WhyNot},
    },
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, packet_state},
    tcp::Part,
};

const NODE_PORT: u16 = 30_080;

fn object(kind: ObjectKind, why_not: Option<WhyNot>) -> PortObject {
    PortObject {
        kind,
        place: "rule 1 of chain KUBE-NODEPORTS".to_owned(),
        service: Some("shop/web".to_owned()),
        why_not,
    }
}

fn named(objects: Vec<PortObject>) -> Port {
    Port {
        is_complete: true,
        objects,
        ..Port::default()
    }
}

/// A node with these facts about the port.
fn node(port: Port) -> Story {
    let mut story = Story::new();
    let mut netns = NetnsFacts::default();
    netns.ports.set(NODE_PORT, false, port);
    story.facts.netns.insert(NODE, netns);
    story
}

/// The node's own TCP refuses the SYN as the client sent it.
fn refused(story: &mut Story, at: u64) {
    let syn = original(story.port);
    let no_socket = record::Socket {
        sock: 0,
        ack_backlog: u32::MAX,
        max_ack_backlog: u32::MAX,
    };
    story.syn(at, Hook::TcpSendReset, Payload::Socket(no_socket));
    let back = syn.reversed();
    story.packet(at + 1, Hook::DevStartXmit, Part::Rst, back, NODE);
}

/// A listener of the node itself answers the SYN as the client sent it, and the handshake finishes.
fn answered(story: &mut Story, at: u64) {
    story.arrives(at);
    story.syn(at + 1, Hook::TcpConnRequest, Payload::Listener(LISTENER));
    let back = original(story.port).reversed();
    story.packet(at + 2, Hook::DevStartXmit, Part::SynAck, back, NODE);
    story.acknowledged(at + 3);
}

#[test]
fn a_named_port_that_nothing_translated() {
    let rule = WhyNot::EndedBefore("rule 1 of chain PREROUTING".to_owned());
    let mut story = node(named(vec![
        object(ObjectKind::IpSet, None),
        object(ObjectKind::Rule, Some(rule)),
    ]));
    story.arrives(MS);
    story.syn(MS + 1, Hook::NatSetup, Payload::Packet);
    refused(&mut story, MS + 2);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::ServiceNotTranslated))
    );
    assert!(
        diagnosis
            .explanation
            .contains("rule 1 of chain PREROUTING comes first"),
        "{}",
        diagnosis.explanation
    );
    assert!(has(&diagnosis, "nat-setup", "none translated it"));
    assert!(has(&diagnosis, "port-named-by", "shop/web"));
}

#[test]
fn an_untracked_syn_is_translated_by_no_rule() {
    let port = Port {
        untracked_by: vec!["rule 2 of chain PREROUTING in iptables' legacy table raw".to_owned()],
        ..named(vec![object(ObjectKind::Rule, None)])
    };
    let mut story = node(port);
    story.arrives(MS);
    refused(&mut story, MS + 2);
    let state = record::PacketState {
        ct: 0,
        info: packet_state::UNTRACKED,
        status: 0,
    };
    story.syn(MS + 5, Hook::KfreeSkb, Payload::PacketState(state));
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::ServiceNotTranslated));
    assert!(has(&diagnosis, "conntrack-state", "UNTRACKED"));
    assert!(has(&diagnosis, "untracked-by", "rule 2 of chain PREROUTING"));
    assert!(
        diagnosis.explanation.contains("legacy table raw"),
        "{}",
        diagnosis.explanation
    );
    assert!(diagnosis.advice.is_some_and(|advice| advice.contains("NOTRACK")));
}

#[test]
fn rules_that_named_the_port_before() {
    let port = Port {
        read_ns: 5 * MS,
        named_before: Some(NamedBefore {
            service: "shop/web".to_owned(),
            seen_ns: MS / 2,
        }),
        ..named(Vec::new())
    };
    let mut story = node(port);
    story.arrives(MS);
    refused(&mut story, MS + 2);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::ServiceNotTranslated));
    assert!(has(&diagnosis, "port-named-before", "shop/web"));
    assert!(has(&diagnosis, "port-named-by", "nothing"));
}

#[test]
fn advice_names_the_rule_that_did_not_translate() {
    let advice = |place: &str, kind, why_not| {
        let object = PortObject {
            kind,
            place: place.to_owned(),
            service: None,
            why_not,
        };
        let mut story = node(named(vec![object]));
        story.arrives(MS);
        refused(&mut story, MS + 2);
        let (_, _, diagnosis) = story.only();
        assert_eq!(diagnosis.cause, Some(Cause::ServiceNotTranslated));
        diagnosis.advice.expect("advice")
    };
    let by_hand = advice(
        "rule 1 (handle 7) of chain pre in the nf_tables table ip hand",
        ObjectKind::Rule,
        Some(WhyNot::NoMatch),
    );
    assert!(by_hand.contains("`nft -a list chain ip hand pre`"), "{by_hand}");
    assert!(
        by_hand.contains("No controller that tracer knows owns"),
        "{by_hand}"
    );
    let unreached = advice(
        "rule 3 of chain KUBE-NODEPORTS in iptables' legacy table nat",
        ObjectKind::Rule,
        Some(WhyNot::NotReached),
    );
    assert!(
        unreached.contains("`iptables-legacy -t nat -S KUBE-NODEPORTS`"),
        "{unreached}"
    );
    assert!(unreached.contains("kube-proxy owns"), "{unreached}");
    let ipvs = advice(
        "IPVS virtual service 10.0.0.1:30080",
        ObjectKind::VirtualService,
        None,
    );
    assert!(ipvs.contains("`ipvsadm -Ln -t 10.0.0.1:30080`"), "{ipvs}");
}

#[test]
fn a_port_that_nothing_names_has_no_service() {
    let mut story = node(named(Vec::new()));
    story.arrives(MS);
    refused(&mut story, MS + 2);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Refused, Some(Cause::TcpNoListener))
    );
    assert!(diagnosis.explanation.contains("No service uses this port"));
    // What could not be read proves nothing.
    let mut story = node(Port::default());
    story.arrives(MS);
    refused(&mut story, MS + 2);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::TcpNoListener));
    assert!(
        !diagnosis.explanation.contains("No service"),
        "{}",
        diagnosis.explanation
    );
}

#[test]
fn a_refused_syn_that_was_translated_is_another_matter() {
    let mut story = node(named(vec![object(ObjectKind::Rule, None)]));
    story.arrives(MS);
    // Redirected to the same port of the node.
    story.syn(MS + 1, Hook::NftNat, Payload::Packet);
    refused(&mut story, MS + 2);
    let (_, _, diagnosis) = story.only();
    assert_eq!(diagnosis.cause, Some(Cause::TcpNoListener));
}

fn listened(owner: Option<Process>, unaccepted_ns: u64) -> Port {
    Port {
        listener: Some(Listener {
            inode: 9,
            owner,
            unaccepted_ns,
        }),
        ..named(vec![object(ObjectKind::IpSet, None)])
    }
}

fn process(name: &str, is_kube_proxy: bool) -> Process {
    Process {
        pid: 77,
        name: name.to_owned(),
        is_kube_proxy,
    }
}

#[test]
fn the_own_socket_of_kube_proxy_answers() {
    let mut story = node(listened(Some(process("kube-proxy", true)), 0));
    answered(&mut story, MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Established, Some(Cause::ServiceAnsweredLocally))
    );
    assert!(is_failure(fate, diagnosis.cause));
    assert!(has(&diagnosis, "listener-owner", "kube-proxy (PID 77)"));
    let advice = diagnosis.advice.expect("advice");
    assert!(
        advice.contains("kube-proxy (process 77) only reserves port 30080"),
        "{advice}"
    );
    assert!(advice.contains("`ss -ltnp sport = :30080`"), "{advice}");
}

#[test]
fn a_listener_that_never_accepts_serves_nobody() {
    let mut story = node(listened(Some(process("stuck", false)), 6_000 * MS));
    answered(&mut story, MS);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Established, Some(Cause::ServiceAnsweredLocally))
    );
    assert!(has(&diagnosis, "listener-never-accepts", "after 6 s"));
}

#[test]
fn a_program_of_the_host_network_is_healthy() {
    let healthy = [
        listened(Some(process("nginx", false)), 0),
        listened(None, 0),
        // It is just slow.
        listened(Some(process("nginx", false)), 4_000 * MS),
        // Its port is not a NodePort.
        Port {
            objects: Vec::new(),
            ..listened(Some(process("kube-proxy", true)), 0)
        },
        named(vec![object(ObjectKind::Rule, None)]),
    ];
    for port in healthy {
        let mut story = node(port);
        answered(&mut story, MS);
        let (_, fate, diagnosis) = story.only();
        assert_eq!((fate, diagnosis.cause), (Fate::Established, None));
        assert!(!is_failure(fate, diagnosis.cause));
    }
}
