//! Packets that a bridge of the node forwards.

mod story;

use std::net::IpAddr;

use story::{MS, NODE, POD, Story, entry, has, original, translated};
use tracer::{
    decode::event::Payload,
    diagnose::{Diagnosis, cause::Cause},
    facts::{NetnsFacts, link::Link},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{self, IpvsConn},
    tcp::Part,
    tuple::{Addr, Tuple},
    uapi::verdict::NF_STOLEN,
};

const BRIDGE: u32 = 20;
const FROM: u32 = 21;
const TO: u32 = 22;

/// Names and values of sysctls.
type Settings<'a> = &'a [(&'a str, &'a str)];

/// The node's devices and settings: a bridge with two ports.
fn node(sysctls: Settings<'_>, nf_call: [bool; 2]) -> NetnsFacts {
    let port = |index, name: &str| Link {
        index,
        name: name.to_owned(),
        kind: Some("veth".to_owned()),
        master: Some(BRIDGE),
        hairpin: Some(true),
        ..Link::default()
    };
    let bridge = Link {
        index: BRIDGE,
        name: "cni0".to_owned(),
        kind: Some("bridge".to_owned()),
        nf_call: Some(nf_call),
        ..Link::default()
    };
    let forward = [("net.ipv4.ip_forward", "1")];
    NetnsFacts {
        links: vec![bridge, port(FROM, "calia"), port(TO, "calib")],
        sysctls: forward
            .iter()
            .chain(sysctls)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..NetnsFacts::default()
    }
}

/// A rule sends the pod's SYN back to itself or to another pod, and the kernel frees it in this function.
fn sent_back(function: &str, to: [u8; 4], hairpin: bool) -> (Fate, Option<Cause>, Diagnosis) {
    const FREED: u64 = 0x1234;
    let mut story = Story::new();
    let mut known = node(&[], [false, false]);
    for link in &mut known.links {
        link.hairpin = link.hairpin.map(|_| hairpin);
    }
    story.facts.netns.insert(NODE, known);
    story
        .facts
        .symbols
        .insert(FREED, format!("{function}+0x1b [bridge]"));
    story.ifindex = FROM;
    story.arrives(MS);
    let translated = Tuple {
        daddr: Addr::from(IpAddr::from(to)),
        dport: 8080,
        ..original(story.port)
    };
    let drop = record::Drop {
        location: FREED,
        reason: u32::MAX,
        reserved: 0,
    };
    story.see(
        2 * MS,
        Hook::KfreeSkb,
        Part::Syn,
        translated,
        NODE,
        Payload::Drop(drop),
    );
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis.cause, diagnosis)
}

#[test]
fn a_pod_that_is_sent_back_to_itself_needs_hairpin() {
    for function in ["br_forward", "br_handle_frame_finish"] {
        let (fate, cause, diagnosis) = sent_back(function, [10, 0, 0, 2], false);
        assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::BridgeHairpinOff)));
        assert!(has(&diagnosis, "bridge", "cni0, port calia"));
        let advice = diagnosis.advice.expect("advice");
        assert!(
            advice.contains("`bridge link set dev calia hairpin on`"),
            "{advice}"
        );
        assert!(advice.contains("bridge plugin of cni0"), "{advice}");
    }
    for (function, to, hairpin) in [
        ("br_forward", [10, 0, 0, 2], true),
        ("br_forward", [10, 244, 1, 2], false),
        ("nf_hook_slow", [10, 0, 0, 2], false),
    ] {
        assert_eq!(sent_back(function, to, hairpin).1, Some(Cause::Unknown));
    }
}

/// IPVS sends the SYN to a pod, whose answer goes to the client with the pod's address, received again by `through`.
fn untranslated(known: NetnsFacts, through: &[u32]) -> Diagnosis {
    let mut story = Story::new();
    story.facts.netns.insert(NODE, known);
    story.arrives(MS);
    story.ipvs(MS + 1, NF_STOLEN, |story| {
        story.lookup(MS + 2, IpvsConn::default());
        story.syn(MS + 3, Hook::IpvsNatXmit, Payload::IpvsConn(entry(3, 1, 1, 0)));
    });
    story.reaches_pod(MS + 4);
    story.listener_accepts(MS + 6);
    let answer = translated(story.port).reversed();
    story.packet(2 * MS, Hook::DevStartXmit, Part::SynAck, answer, POD);
    for (at, &index) in (2 * MS + 1..).zip(through) {
        story.ifindex = index;
        story.packet(at, Hook::NetifReceive, Part::SynAck, answer, NODE);
    }
    story.ifindex = TO;
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, answer, NODE);
    let (_, fate, diagnosis) = story.only();
    assert_eq!(
        (fate, diagnosis.cause),
        (Fate::Unanswered, Some(Cause::ReturnNotTranslated))
    );
    diagnosis
}

#[test]
fn a_bridged_answer_passes_no_netfilter_hook_without_br_netfilter() {
    let settings: [(Settings<'_>, [bool; 2]); 2] = [
        (&[], [true, true]),
        (&[("net.bridge.bridge-nf-call-iptables", "0")], [false, false]),
    ];
    for (sysctls, nf_call) in settings {
        let diagnosis = untranslated(node(sysctls, nf_call), &[FROM]);
        assert!(has(&diagnosis, "bridge", "cni0, from calia to calib"));
        assert!(
            diagnosis.explanation.contains("never went through netfilter"),
            "{diagnosis:?}"
        );
        assert!(
            diagnosis
                .advice
                .as_ref()
                .is_some_and(|advice| advice.contains("bridge-nf-call-iptables=1"))
        );
        assert!(
            !diagnosis
                .evidence
                .iter()
                .any(|fact| fact.key.name() == "answer-entry")
        );
    }
}

#[test]
fn a_bridged_answer_that_passes_netfilter_is_not_blamed_on_the_setting() {
    let settings: [(Settings<'_>, [bool; 2]); 2] = [
        (&[("net.bridge.bridge-nf-call-iptables", "1")], [false, false]),
        (&[("net.bridge.bridge-nf-call-iptables", "0")], [true, false]),
    ];
    for (sysctls, nf_call) in settings {
        let diagnosis = untranslated(node(sysctls, nf_call), &[FROM]);
        assert!(!diagnosis.explanation.contains("never passed"), "{diagnosis:?}");
        assert!(has(&diagnosis, "bridge", "cni0"));
        assert!(
            !diagnosis
                .evidence
                .iter()
                .any(|fact| fact.key.name() == "answer-entry")
        );
    }
}

#[test]
fn an_answer_that_the_bridge_device_receives_is_routed() {
    let diagnosis = untranslated(node(&[], [false, false]), &[FROM, BRIDGE]);
    assert!(!diagnosis.explanation.contains("never passed"));
    assert!(has(&diagnosis, "answer-entry", "none"));
}
