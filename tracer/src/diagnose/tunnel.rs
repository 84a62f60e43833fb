//! Tunnels to other nodes: IPIP and VXLAN that could not send what they were given.
//!
//! A tunnel's device takes the packet, looks for a route to the other node, puts an outer header in front and sends the
//! whole as a packet of its own. What goes wrong before that is discarded by the tunnel's own function; what goes wrong
//! after it is discarded as an outer packet, which tracer sees through.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::{decode::event::Payload, flow::model::Step};

/// Functions of tunnels that free a packet which they cannot send (`net/ipv4/ip_tunnel.c`, `net/ipv4/ipip.c`,
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
        says: "The packet did not fit through a tunnel to another node and was not to be fragmented.",
        proof: "The packet was freed by the tunnel's function or with the tunnel's outer header in front of it, and the \
                kernel had just called __icmp_send for it with the error 'fragmentation needed'.",
        advice: Some(
            "Look at the MTU of the tunnel's device, of the device below it and of the route to the other node: IPIP \
             needs 20 bytes more than the packet has, VXLAN 50. A SYN is 60 bytes, so only a limit below 80 bytes (IPIP) \
             or 110 (VXLAN) stops it. A tunnel with a common MTU problem lets handshakes pass and loses full packets \
             after them, which tracer does not follow.",
        ),
        occurs: "Any dataplane with backends behind IPIP, or behind VXLAN whose packets are not to be fragmented (df).",
        hooks: &[&[Hook::KfreeSkb], &[Hook::IcmpSend]],
        find: too_big,
    },
    Row {
        cause: Cause::TunnelFailed,
        says: "A tunnel to another node could not send the packet, or told the client that the other node cannot be \
               reached.",
        proof: "The tunnel's function (ip_tunnel_xmit, vxlan_xmit, vxlan_xmit_one) freed the packet; or the tunnel's \
                device was handed the SYN, called __icmp_send for it with 'host unreachable', and sent it on.",
        advice: Some(
            "Look at `ip route get` for the address of the other node: there must be a route, and not through the tunnel \
             itself; with VXLAN look at `bridge fdb show` for the hardware address of the other node's tunnel. Is the \
             other node up, and does it take this tunnel's packets?",
        ),
        occurs: "Any dataplane with backends behind IPIP or VXLAN.",
        // Without the ICMP error a packet that is too big would look the same.
        hooks: &[&[Hook::KfreeSkb], &[Hook::IcmpSend]],
        find: failed,
    },
];

fn too_big(case: &Case<'_>) -> Option<Proof> {
    let step = discarded(case)?;
    if step.event.outer.is_none() && !is_tunnels(case) {
        return None;
    }
    let icmp = case
        .steps()
        .find(|told| told.event.skb == step.event.skb && is_too_big(told) && is_before(told, step))?;
    let (packet, way) = (case.discarded_packet(), way(case, step));
    let mut evidence = vec![Evidence::seen(
        "ICMP error about it",
        icmp_name(icmp),
        icmp.event.hook,
    )];
    let sizes = case.steps().find_map(|told| match &told.event.payload {
        Payload::TooBig(sizes) if told.event.skb == step.event.skb && is_before(told, step) => Some(sizes),
        _ => None,
    });
    if let Some(sizes) = sizes {
        let size = |what: &str, bytes: u32| Evidence::seen(what, bytes.to_string(), icmp.event.hook);
        evidence.push(size("MTU", sizes.mtu));
        if sizes.length != 0 {
            evidence.push(size("length of the packet", sizes.length));
        }
    }
    evidence.extend(evidence_of(case, step));
    Some(Proof {
        explanation: format!(
            "The {packet} {} -> {} did not fit through {way} and was not to be fragmented.",
            step.event.tuple.source(),
            step.event.tuple.destination(),
        ),
        evidence,
    })
}

fn failed(case: &Case<'_>) -> Option<Proof> {
    match case.situation {
        Situation::Dropped => not_sent(case),
        Situation::Refused => reported(case),
        Situation::Silent | Situation::Late => None,
    }
}

/// The tunnel's function freed the packet.
fn not_sent(case: &Case<'_>) -> Option<Proof> {
    let step = discarded(case).filter(|_| is_tunnels(case))?;
    let (packet, way) = (case.discarded_packet(), way(case, step));
    Some(Proof {
        explanation: format!(
            "The {packet} {} -> {} was handed to {way}, which could not send it. Most often there is no route to the \
             other node, or one that leads into the tunnel itself.",
            step.event.tuple.source(),
            step.event.tuple.destination(),
        ),
        evidence: evidence_of(case, step),
    })
}

/// The tunnel sent the packet, but an ICMP error about an earlier one of its own made it tell the client that the host is
/// unreachable (`tunnel->err_count` in `ip_tunnel_xmit`, for 30 s).
fn reported(case: &Case<'_>) -> Option<Proof> {
    let told = case.steps().find(|step| is_unreachable(step))?;
    let into = case.steps().rfind(|step| {
        step.event.skb == told.event.skb
            && is_before(step, told)
            && matches!(
                step.event.hook,
                Hook::DevStartXmit | Hook::IpvsNatXmit | Hook::IcmpSend
            )
    })?;
    if into.event.hook != Hook::DevStartXmit || into.event.outer.is_some() || into.event.dev != told.event.dev
    {
        return None;
    }
    let sent = case
        .steps()
        .find(|step| step.event.outer.is_some() && step.event.part == Part::Syn && is_before(told, step))?;
    let outer = sent.event.outer?;
    let device = into.event.dev.get().unwrap_or_default();
    Some(Proof {
        explanation: format!(
            "The SYN went into the tunnel {device} ({outer}), but the client was told that the host is unreachable: the \
             tunnel has just heard an ICMP error about its own packets to that node, and repeats it for a while.",
        ),
        evidence: vec![
            Evidence::seen("tunnel", device, into.event.hook),
            Evidence::seen("other node", outer.destination.to_string(), sent.event.hook),
            Evidence::seen("ICMP sent to the client", icmp_name(told), told.event.hook),
        ],
    })
}

/// The step at which this node discarded the packet.
fn discarded<'a>(case: &Case<'a>) -> Option<&'a Step> {
    case.discarded.filter(|_| case.situation == Situation::Dropped)
}

/// Did a function of a tunnel free the packet?
fn is_tunnels(case: &Case<'_>) -> bool {
    case.discarded_in()
        .is_some_and(|symbol| FUNCTIONS.contains(&evidence::function(symbol)))
}

/// The tunnel, in words.
fn way(case: &Case<'_>, step: &Step) -> String {
    match step.event.outer {
        Some(outer) => format!("a tunnel ({outer})"),
        None => match (step.event.dev.get(), evidence::gateway(case)) {
            (Some(device), Some(gateway)) => format!("the tunnel {device} towards {gateway}"),
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
        out.push(Evidence::seen("tunnel", device, Hook::KfreeSkb));
        let gateway = evidence::gateway(case);
        out.extend(gateway.map(|gateway| Evidence::seen("other node", gateway, Hook::KfreeSkb)));
    }
    out.extend(evidence::discarded(step, case.facts));
    out
}

fn is_before(one: &Step, other: &Step) -> bool {
    one.event.time_ns < other.event.time_ns
}

fn is_too_big(step: &Step) -> bool {
    let Payload::Icmp(icmp) = &step.event.payload else {
        return false;
    };
    // The outer header is one of IPv4, whatever it wraps.
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
