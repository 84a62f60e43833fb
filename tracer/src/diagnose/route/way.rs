//! There was no way for a packet: forwarding is off, or no route leads to its destination.

use std::net::IpAddr;

use nix::errno::Errno;
use tracer_common::{hook::Hook, record::route, tcp::Part};

use super::{device, end, freed_in, packet, reason, told, way_evidence, way_to};
use crate::{
    diagnose::{
        case::{Case, Proof, Situation},
        catalogue::Row,
        cause::Cause,
        evidence::{self, Evidence},
        tcp,
    },
    facts::route::Route,
    flow::model::Step,
};

pub(super) const FORWARDING_OFF: Row = Row {
    cause: Cause::RouteForwardingOff,
    says: "The packet was to be forwarded, but forwarding is off on the device that it came in by: it is discarded \
           in silence.",
    proof: "IPv4: ip_error was called for the packet, and forwarding of its device was read there as 0. IPv6: the packet \
            was freed in ip6_forward, with the reason IP_INADDRERRORS where the kernel gives reasons, its source is \
            one that may be forwarded, and net.ipv6.conf.all.forwarding is 0.",
    advice: Some(
        "Switch forwarding on: `sysctl -w net.ipv4.ip_forward=1` (kube-proxy does so when it starts; find out who \
         switched it off), or net.ipv4.conf.DEVICE.forwarding=1 if it is off for this device only.",
    ),
    occurs: "Every kernel. In iptables and nftables mode the SYN already, in IPVS mode the answer of a pod.",
    hooks: &[&[Hook::RouteError], &[Hook::KfreeSkb]],
    find: forwarding_off,
};

pub(super) const UNREACHABLE: Row = Row {
    cause: Cause::RouteUnreachable,
    says: "The routing tables have no way for the packet: no route at all, or one that says unreachable, prohibit \
           or blackhole.",
    proof: "ip_error was called for the packet, with the error of its route, while forwarding was on; or the packet was \
            freed in ip6_pkt_drop (IPv6), or in dst_discard, where blackhole routes lead; or the backend's listener threw \
            the SYN away while none of its queues was full, and its network namespace has no way back to the client.",
    advice: Some(
        "Look at `ip route get` for the destination: a route that the network plugin should have made is missing, \
         or one that it made on purpose says no (Calico's blackhole routes for blocks of its own). Where the backend has \
         no way back, ask in its network namespace (`nsenter -t PID -n ip route get`).",
    ),
    occurs: "Every kernel. In iptables and nftables mode for the SYN, in every mode for the answer. IPVS looks the \
             way to a real server up itself: that is ipvs.xmit-no-route.",
    hooks: &[&[Hook::RouteError], &[Hook::KfreeSkb]],
    find: |case| unreachable(case).or_else(|| no_way_back(case)),
};

/// The functions in which IPv6 frees a packet that has no route (`net/ipv6/route.c`, 3.10 to 7.3).
const NO_ROUTE: [&str; 3] = ["ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit"];

/// Where packets go whose route says blackhole, or lost its device (`net/core/dst.c`, 3.10 to 7.3).
const DISCARD: [&str; 2] = ["dst_discard", "dst_discard_out"];

fn forwarding_off(case: &Case<'_>) -> Option<Proof> {
    let end = end(case)?;
    // What a pod would forward is a SYN for an address that it does not have: no setting is to blame for that.
    if end.event.part == Part::Syn && end.netns != case.flow.netns {
        return None;
    }
    let (device, mut evidence) = match told(case, Hook::RouteError, end) {
        Some((step, settings)) => {
            if settings.have & route::FORWARDING == 0 || settings.forwarding != 0 {
                return None;
            }
            let device = device(step);
            let own = format!("net.ipv4.conf.{device}.forwarding");
            let mut evidence = vec![Evidence::seen(
                own,
                settings.forwarding.to_string(),
                step.event.hook,
            )];
            if settings.have & route::FORWARDING_ALL != 0 {
                evidence.push(Evidence::seen(
                    "net.ipv4.ip_forward",
                    settings.forwarding_all.to_string(),
                    step.event.hook,
                ));
            }
            (device, evidence)
        }
        None => (device(end), vec![forwarding_off_v6(case, end)?]),
    };
    evidence.extend(evidence::discarded(end, case.facts));
    Some(Proof {
        explanation: format!(
            "The {} came in by {device} and was to be forwarded to {}, but forwarding is off there: it was discarded \
             in silence.",
            packet(end),
            end.event.tuple.destination(),
        ),
        evidence,
    })
}

/// `ip6_forward` discards for this and for some sources, with a reason of their own since 5.18, and for others.
fn forwarding_off_v6(case: &Case<'_>, end: &Step) -> Option<Evidence> {
    let setting = "net.ipv6.conf.all.forwarding";
    let IpAddr::V6(source) = end.event.tuple.saddr.ip() else {
        return None;
    };
    let refused = source.is_unspecified()
        || source.is_multicast()
        || source.is_loopback()
        || source.is_unicast_link_local();
    let value = case.facts.netns.get(&end.event.netns)?.sysctls.number(setting)?;
    let off = value == 0
        && !refused
        && reason(case, end).is_none_or(|reason| reason == "IP_INADDRERRORS")
        && freed_in(case, end, &["ip6_forward"]);
    off.then(|| Evidence::read(setting, value.to_string(), "/proc/sys"))
}

/// A listener looks the way of its SYN-ACK up before it keeps the SYN, and throws that away if there is none
/// (`tcp_conn_request`, `inet_csk_route_req`, 4.4 to 7.3).
fn no_way_back(case: &Case<'_>) -> Option<Proof> {
    let (step, listener) = tcp::refused_without_a_full_queue(case)?;
    let client = step.event.tuple.saddr.ip();
    let Some(Route::None(_)) = way_to(case, step, client) else {
        return None;
    };
    let mut evidence = tcp::queues(case, step, listener);
    evidence.extend(way_evidence(case, step, client));
    let owner = tcp::owner(case.flow, step);
    Some(Proof {
        explanation: format!(
            "The SYN reached the listener of {owner} at {}, which threw it away, for {owner} has no route back to {client}.",
            step.event.tuple.destination(),
        ),
        evidence,
    })
}

fn unreachable(case: &Case<'_>) -> Option<Proof> {
    let end = end(case)?;
    let destination = end.event.tuple.daddr.ip();
    let mut evidence = Vec::new();
    let why = if let Some((step, settings)) = told(case, Hook::RouteError, end) {
        let known = route::FORWARDING | route::ERROR;
        if settings.have & known != known || settings.forwarding == 0 {
            return None;
        }
        let errno = Errno::from_raw(settings.error);
        evidence.push(Evidence::seen(
            format!("error of the route to {destination}"),
            format!("{errno:?} ({})", errno.desc()),
            step.event.hook,
        ));
        match errno {
            Errno::ENETUNREACH => format!("there is no route to {destination}"),
            Errno::EHOSTUNREACH => format!("the route to {destination} says that it is unreachable"),
            Errno::EACCES => format!("the route to {destination} prohibits it"),
            Errno::EINVAL => format!("the route to {destination} is a blackhole"),
            _ => format!("no route leads to {destination}"),
        }
    } else if freed_in(case, end, &NO_ROUTE) {
        format!("no route leads to {destination}")
    } else if freed_in(case, end, &DISCARD) {
        format!("the route to {destination} is a blackhole, or its device is gone")
    } else {
        return None;
    };
    evidence.extend(way_evidence(case, end, destination));
    if case.situation == Situation::Refused {
        evidence.extend(evidence::icmp(case.flow));
    }
    evidence.extend(evidence::discarded(end, case.facts));
    Some(Proof {
        explanation: format!("The {} was to be sent on, but {why}.", packet(end)),
        evidence,
    })
}
