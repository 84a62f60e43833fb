//! SYNs that leave the node through a tunnel or a device.

mod story;

use std::net::Ipv4Addr;

use story::{MS, NODE, Story, has, original, translated};
use tracer::{
    decode::event::{Outer, Payload},
    diagnose::{Diagnosis, cause::Cause},
    flow::fate::Fate,
};
use tracer_common::{
    hook::Hook,
    record::{Drop, Egress, Icmp, TooBig},
    tcp::Part,
    tunnel,
    tuple::{Addr, Tuple},
};

const TO_NODE_B: Outer = Outer {
    protocol: tunnel::IPIP,
    destination: Ipv4Addr::new(10, 0, 0, 12),
};
const LOCATION: u64 = 0x1234;
const REASON: u32 = 77;
const FRAG_NEEDED: Icmp = Icmp {
    icmp_type: 3,
    code: 4,
};
const HOST_UNREACHABLE: Icmp = Icmp {
    icmp_type: 3,
    code: 1,
};

/// A SYN that IPVS translated and the node passed to the tunnel device.
fn into_tunnel() -> Story {
    let mut story = Story::new();
    story.arrives(MS);
    let tuple = translated(story.port);
    story.packet(2 * MS, Hook::DevStartXmit, Part::Syn, tuple, NODE);
    story
}

fn icmp(story: &mut Story, at: u64, icmp: Icmp) {
    let tuple = translated(story.port);
    story.see(at, Hook::IcmpSend, Part::Syn, tuple, NODE, Payload::Icmp(icmp));
}

/// The node drops the translated SYN in this function, for this reason.
fn dropped(story: &mut Story, at: u64, symbol: &str, reason: Option<&str>, egress: Egress) {
    story.facts.symbols.insert(LOCATION, symbol.to_owned());
    if let Some(reason) = reason {
        story.facts.drop_reasons.insert(REASON, reason.to_owned());
    }
    let drop = Drop {
        location: LOCATION,
        reason: if reason.is_some() { REASON } else { u32::MAX },
        reserved: 0,
    };
    let tuple = translated(story.port);
    story.see(
        at,
        Hook::KfreeSkb,
        Part::Syn,
        tuple,
        NODE,
        Payload::Egress(egress),
    );
    story.see(
        at + 1,
        Hook::KfreeSkb,
        Part::Syn,
        tuple,
        NODE,
        Payload::Drop(drop),
    );
}

fn egress(qdisc: &str) -> Egress {
    let mut egress = Egress {
        gateway: Addr::v4([10, 0, 0, 12]),
        ..Egress::default()
    };
    egress.qdisc[..qdisc.len()].copy_from_slice(qdisc.as_bytes());
    egress
}

fn cause(mut story: Story) -> (Fate, Option<Cause>, Diagnosis) {
    let (_, fate, diagnosis) = story.only();
    (fate, diagnosis.cause, diagnosis)
}

#[test]
fn a_tunnel_that_frees_the_syn_has_failed() {
    for symbol in [
        "ip_tunnel_xmit+0x135 [ip_tunnel]",
        "vxlan_xmit+0x4f0 [vxlan]",
        "vxlan_xmit_one.cold+0x9 [vxlan]",
    ] {
        let mut story = into_tunnel();
        dropped(
            &mut story,
            3 * MS,
            symbol,
            Some("NOT_SPECIFIED"),
            egress("noqueue"),
        );
        let (fate, cause, diagnosis) = cause(story);
        assert_eq!(
            (fate, cause),
            (Fate::Dropped, Some(Cause::TunnelFailed)),
            "{symbol}"
        );
        assert!(has(&diagnosis, "dropped-in", symbol), "{diagnosis:?}");
    }
}

#[test]
fn the_icmp_error_shows_that_a_packet_is_too_big_for_the_tunnel() {
    let mut story = into_tunnel();
    icmp(&mut story, 3 * MS, FRAG_NEEDED);
    let tuple = translated(story.port);
    let sizes = TooBig { mtu: 50, length: 60 };
    story.see(
        3 * MS,
        Hook::IcmpSend,
        Part::Syn,
        tuple,
        NODE,
        Payload::TooBig(sizes),
    );
    dropped(
        &mut story,
        4 * MS,
        "ip_tunnel_xmit+0x135 [ip_tunnel]",
        None,
        egress("noqueue"),
    );
    let (fate, cause, diagnosis) = cause(story);
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::TunnelMtu)));
    assert!(has(&diagnosis, "mtu", "50"), "{diagnosis:?}");
}

#[test]
fn an_outer_packet_that_is_too_big_is_blamed_on_the_tunnel() {
    let mut story = into_tunnel();
    story.outer = Some(TO_NODE_B);
    icmp(&mut story, 3 * MS, FRAG_NEEDED);
    dropped(
        &mut story,
        4 * MS,
        "ip_fragment.constprop.0+0x7a",
        None,
        egress(""),
    );
    let (fate, cause, diagnosis) = cause(story);
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::TunnelMtu)));
    assert!(has(&diagnosis, "outer", "IPIP to 10.0.0.12"), "{diagnosis:?}");
}

#[test]
fn a_packet_that_is_too_big_without_a_tunnel_is_not_blamed_on_one() {
    let mut story = into_tunnel();
    icmp(&mut story, 3 * MS, FRAG_NEEDED);
    dropped(&mut story, 4 * MS, "ip_forward+0x1b0", None, egress("noqueue"));
    let (fate, cause, _) = cause(story);
    assert_eq!((fate, cause), (Fate::Dropped, Some(Cause::Unknown)));
}

#[test]
fn a_tunnel_that_answers_host_unreachable_has_failed() {
    let mut story = into_tunnel();
    icmp(&mut story, 3 * MS, HOST_UNREACHABLE);
    story.outer = Some(TO_NODE_B);
    let tuple = translated(story.port);
    story.packet(4 * MS, Hook::DevStartXmit, Part::Syn, tuple, NODE);
    let (fate, cause, diagnosis) = cause(story);
    assert_eq!((fate, cause), (Fate::Refused, Some(Cause::TunnelFailed)));
    assert!(has(&diagnosis, "other-node", "10.0.0.12"), "{diagnosis:?}");
}

#[test]
fn an_icmp_error_about_an_outer_packet_refuses_nothing() {
    let mut story = into_tunnel();
    story.outer = Some(TO_NODE_B);
    icmp(&mut story, 3 * MS, HOST_UNREACHABLE);
    let (_, fate, _) = story.only();
    assert_eq!(fate, Fate::Unanswered);
}

#[test]
fn a_queue_a_filter_and_a_device_that_is_down_are_distinguished() {
    for (symbol, reason, qdisc, words) in [
        (
            "__dev_queue_xmit+0xcfb",
            Some("QDISC_DROP"),
            "netem",
            "(qdisc netem)",
        ),
        ("kfree_skb_list+0x1e", None, "tbf", "(qdisc tbf)"),
        (
            "__dev_queue_xmit+0x2a0",
            Some("TC_EGRESS"),
            "noqueue",
            "by a tc filter",
        ),
        ("__dev_queue_xmit+0xcfb", Some("QDISC_DROP"), "noop", "not up"),
        (
            "veth_xmit+0x40 [veth]",
            Some("NOT_SPECIFIED"),
            "noqueue",
            "on output at a device.",
        ),
    ] {
        let mut story = Story::new();
        story.arrives(MS);
        dropped(&mut story, 2 * MS, symbol, reason, egress(qdisc));
        let (fate, cause, diagnosis) = cause(story);
        assert_eq!(
            (fate, cause),
            (Fate::Dropped, Some(Cause::DevTxDropped)),
            "{symbol} {qdisc}"
        );
        assert!(diagnosis.explanation.contains(words), "{}", diagnosis.explanation);
    }
}

#[test]
fn drops_elsewhere_are_not_blamed_on_the_device() {
    for (symbol, reason) in [
        ("ip_rcv_finish_core.isra.0+0x1a0", Some("IP_RPFILTER")),
        ("__dev_queue_xmit+0xcfb", Some("NOMEM")),
        ("skb_release_data+0x10", None),
    ] {
        let mut story = Story::new();
        story.arrives(MS);
        dropped(&mut story, 2 * MS, symbol, reason, egress("netem"));
        let (_, cause, _) = cause(story);
        assert_ne!(cause, Some(Cause::DevTxDropped), "{symbol}");
    }
}

/// The client's unmodified SYN inside a tunnel: no flow starts there.
#[test]
fn a_flow_starts_where_its_syn_leaves_the_tunnel() {
    let mut story = Story::new();
    story.outer = Some(TO_NODE_B);
    story.arrives(MS);
    story.outer = None;
    story.arrives(2 * MS);
    let tuple: Tuple = original(story.port).reversed();
    story.packet(3 * MS, Hook::DevStartXmit, Part::SynAck, tuple, NODE);
    story.acknowledged(4 * MS);
    let (flow, fate, _) = story.only();
    assert_eq!((flow.attempts.len(), fate), (1, Fate::Established));
}

/// A SYN that is seen entering a tunnel, in it, and leaving it on another node is still one SYN with one answer.
#[test]
fn a_tunnel_adds_no_retransmission() {
    let mut story = into_tunnel();
    let tuple = translated(story.port);
    story.outer = Some(TO_NODE_B);
    story.packet(3 * MS, Hook::DevStartXmit, Part::Syn, tuple, NODE);
    story.packet(4 * MS, Hook::NetifReceive, Part::SynAck, tuple.reversed(), NODE);
    story.outer = None;
    story.ifindex = 9;
    story.packet(5 * MS, Hook::NetifReceive, Part::SynAck, tuple.reversed(), NODE);
    story.acknowledged(6 * MS);
    let (flow, fate, _) = story.only();
    assert_eq!(
        (flow.attempts.len(), flow.synacks, fate),
        (1, 1, Fate::Established)
    );
    assert_eq!(flow.stall_ns(), None);
}
