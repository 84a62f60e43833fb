//! Tunnels to other nodes: IPIP and VXLAN devices that could not send a packet.
//!
//! A tunnel device looks up the route to the other node, puts an outer header in front of the packet and sends the result as a
//! packet of its own. Before that, a drop happens in the tunnel's own function. After it, the outer packet is dropped, and tracer
//! reads the inner one.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    egress,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
};
use crate::{decode::event::Payload, flow::model::Step};

/// Functions of tunnels that free a packet they cannot send (`net/ipv4/ip_tunnel.c`, `net/ipv4/ipip.c`,
/// `drivers/net/vxlan`; 5.10 to 7.3).
const FUNCTIONS: [&str; 5] = [
    "ip_tunnel_xmit",
    "ip_md_tunnel_xmit",
    "ipip_tunnel_xmit",
    "vxlan_xmit",
    "vxlan_xmit_one",
];

/// ICMP destination unreachable, fragmentation needed (RFC 792); its ICMPv6 counterpart, packet too big, is a type.
const ICMP_UNREACHABLE: u32 = 3;
const ICMP_FRAG_NEEDED: u32 = 4;
const ICMPV6_UNREACHABLE: u32 = 1;
const ICMPV6_TOO_BIG: u32 = 2;

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::TunnelMtu,
        group: Group::Network,
        summary: "The packet was too big for the tunnel to another node and must not be fragmented.",
        proof: "The packet was freed by the tunnel's function or with the tunnel's outer header in front of it, and the kernel had \
                just called __icmp_send for it with the error 'fragmentation needed'.",
        advice: Some(
            "Check the MTU of the tunnel device, of the device below it and of the route to the other node: IPIP adds 20 bytes to \
             the packet, VXLAN 50. A SYN is 60 bytes long, so only a limit below 80 bytes (IPIP) or 110 (VXLAN) stops it. A tunnel \
             with an ordinary MTU problem lets handshakes pass and loses full-size packets after them, which tracer does not \
             trace.",
        ),
        scope: "Any dataplane with backends behind IPIP, or behind VXLAN whose packets must not be fragmented (df).",
        hooks: &[&[Hook::KfreeSkb], &[Hook::IcmpSend]],
        absence: Absence::Nothing,
        light: Light::Hidden,
        detect: too_big,
    },
    Row {
        cause: Cause::TunnelFailed,
        group: Group::Network,
        summary: "A tunnel to another node could not send the packet, or reported the other node as unreachable to the client.",
        proof: "The tunnel's function (ip_tunnel_xmit, vxlan_xmit, vxlan_xmit_one) freed the packet; or the tunnel device was \
                handed the SYN, called __icmp_send for it with 'host unreachable', and sent it on.",
        advice: Some(
            "Run `ip route get` for the address of the other node: there must be a route, and not through the tunnel itself. For \
             VXLAN, look in `bridge fdb show` for the MAC address of the other node's tunnel. Check that the other node is up and \
             accepts this tunnel's packets.",
        ),
        scope: "Any dataplane with backends behind IPIP or VXLAN.",
        // Without the ICMP error a packet that is too big would look the same.
        hooks: &[&[Hook::KfreeSkb], &[Hook::IcmpSend]],
        absence: Absence::Nothing,
        light: Light::Hidden,
        detect: failed,
    },
];

fn too_big(case: &Case<'_>) -> Option<Proof> {
    let step = dropped(case)?;
    if step.event.outer.is_none() && !is_by_tunnel(case) {
        return None;
    }
    let icmp = case
        .steps()
        .find(|error| error.event.skb == step.event.skb && is_too_big(error) && is_before(error, step))?;
    let (packet, tunnel) = (case.dropped_packet(), name(case, step));
    let mut evidence = vec![Evidence::seen(Key::IcmpError, icmp_name(icmp), icmp.event.hook)];
    let sizes = case.steps().find_map(|error| match &error.event.payload {
        Payload::TooBig(sizes) if error.event.skb == step.event.skb && is_before(error, step) => Some(sizes),
        _ => None,
    });
    if let Some(sizes) = sizes {
        let size = |key: Key, bytes: u32| Evidence::seen(key, bytes.to_string(), icmp.event.hook);
        evidence.push(size(Key::Mtu, sizes.mtu));
        if sizes.length != 0 {
            evidence.push(size(Key::PacketLength, sizes.length));
        }
    }
    evidence.extend(evidence_of(case, step));
    Some(Proof::new(
        format!(
            "The {packet} {} -> {} was too big for {tunnel} and must not be fragmented.",
            step.event.tuple.source(),
            step.event.tuple.destination(),
        ),
        evidence,
    ))
}

fn failed(case: &Case<'_>) -> Option<Proof> {
    match case.situation {
        Situation::Dropped => not_sent(case),
        Situation::Refused => reported(case),
        Situation::Silent | Situation::Late | Situation::Established => None,
    }
}

/// Proves that the tunnel's function freed the packet.
fn not_sent(case: &Case<'_>) -> Option<Proof> {
    let step = dropped(case).filter(|_| is_by_tunnel(case))?;
    let (packet, tunnel) = (case.dropped_packet(), name(case, step));
    Some(Proof::new(
        format!(
            "The {packet} {} -> {} was handed to {tunnel}, which could not send it. The usual reason is that there is no route to \
             the other node, or one that leads into the tunnel itself.",
            step.event.tuple.source(),
            step.event.tuple.destination(),
        ),
        evidence_of(case, step),
    ))
}

/// Proves that the tunnel sent the packet, but also sent the client "host unreachable", because of an ICMP error about an
/// earlier packet (`tunnel->err_count` in `ip_tunnel_xmit`, for 30 s).
fn reported(case: &Case<'_>) -> Option<Proof> {
    let error = case.steps().find(|step| is_unreachable(step))?;
    let into = case.steps().rfind(|step| {
        step.event.skb == error.event.skb
            && is_before(step, error)
            && matches!(
                step.event.hook,
                Hook::DevStartXmit | Hook::IpvsNatXmit | Hook::IcmpSend
            )
    })?;
    if into.event.hook != Hook::DevStartXmit
        || into.event.outer.is_some()
        || into.event.dev != error.event.dev
    {
        return None;
    }
    let sent = case
        .steps()
        .find(|step| step.event.outer.is_some() && step.event.part == Part::Syn && is_before(error, step))?;
    let outer = sent.event.outer?;
    let device = into.event.dev.get().unwrap_or_default();
    Some(Proof::new(
        format!(
            "The SYN went into the tunnel {device} ({outer}), but the tunnel sent the client \"host unreachable\": it recently got \
             an ICMP error for its own packets to that node, and repeats it for a while.",
        ),
        [
            Evidence::seen(Key::Tunnel, device, into.event.hook),
            Evidence::seen(Key::OtherNode, outer.destination.to_string(), sent.event.hook),
            Evidence::seen(Key::IcmpToClient, icmp_name(error), error.event.hook),
        ],
    ))
}

/// The step at which this node dropped the packet.
fn dropped<'a>(case: &Case<'a>) -> Option<&'a Step> {
    case.dropped.filter(|_| case.situation == Situation::Dropped)
}

/// Whether a function of a tunnel freed the packet.
fn is_by_tunnel(case: &Case<'_>) -> bool {
    case.dropped_in()
        .is_some_and(|symbol| FUNCTIONS.contains(&evidence::function(symbol)))
}

/// The tunnel, as part of a sentence.
fn name(case: &Case<'_>, step: &Step) -> String {
    match step.event.outer {
        Some(outer) => format!("a tunnel ({outer})"),
        None => match (step.event.dev.get(), egress::next_hop(case)) {
            (Some(device), Some(gateway)) => format!("the tunnel {device} to {gateway}"),
            (Some(device), None) => format!("the tunnel {device}"),
            (None, _) => "a tunnel".to_owned(),
        },
    }
}

fn evidence_of(case: &Case<'_>, step: &Step) -> Vec<Evidence> {
    let mut out = Vec::new();
    if step.event.outer.is_none()
        && let Some(device) = step.event.dev.get()
    {
        out.push(Evidence::seen(Key::Tunnel, device, Hook::KfreeSkb));
        let gateway = egress::next_hop(case);
        out.extend(gateway.map(|gateway| Evidence::seen(Key::OtherNode, gateway, Hook::KfreeSkb)));
    }
    out.extend(evidence::dropped(step, case.facts));
    out
}

fn is_before(one: &Step, other: &Step) -> bool {
    one.event.time_ns < other.event.time_ns
}

fn is_too_big(step: &Step) -> bool {
    let Payload::Icmp(icmp) = &step.event.payload else {
        return false;
    };
    // The outer header is IPv4, whatever it wraps.
    if step.event.tuple.is_v6() && step.event.outer.is_none() {
        icmp.icmp_type == ICMPV6_TOO_BIG
    } else {
        (icmp.icmp_type, icmp.code) == (ICMP_UNREACHABLE, ICMP_FRAG_NEEDED)
    }
}

fn is_unreachable(step: &Step) -> bool {
    let Payload::Icmp(icmp) = &step.event.payload else {
        return false;
    };
    let (icmp_type, code) = if step.event.tuple.is_v6() {
        (ICMPV6_UNREACHABLE, 3)
    } else {
        (ICMP_UNREACHABLE, 1)
    };
    step.event.part == Part::Syn
        && step.event.outer.is_none()
        && (icmp.icmp_type, icmp.code) == (icmp_type, code)
}

fn icmp_name(step: &Step) -> String {
    match &step.event.payload {
        Payload::Icmp(icmp) => {
            let is_v6 = step.event.tuple.is_v6() && step.event.outer.is_none();
            evidence::icmp_name(icmp, is_v6)
        }
        _ => String::new(),
    }
}
