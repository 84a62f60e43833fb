//! A packet could not be forwarded: forwarding is off, or there is no route to its destination.

use std::net::IpAddr;

use nix::errno::Errno;
use tracer_common::{hook::Hook, record::route, tcp::Part};

use super::freed::{self, device, packet, read_by, reason, route_evidence};
use crate::{
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
        tcp,
        words::capitalized,
    },
    facts::route::Route,
    flow::model::Step,
};

pub(super) const FORWARDING_OFF: Row = Row {
    cause: Cause::RouteForwardingOff,
    group: Group::Network,
    summary: "The packet needed forwarding, but forwarding is off on the device it came in through: the kernel silently dropped it.",
    proof: "IPv4: ip_error was called for the packet, and forwarding of its device was read there as 0. IPv6: the packet was freed \
            in ip6_forward, with the reason IP_INADDRERRORS where the kernel gives reasons, its source may be forwarded, and \
            net.ipv6.conf.all.forwarding is 0.",
    advice: Some(
        "Turn on forwarding for the device in the evidence, or for all (net.ipv4.ip_forward). kube-proxy or the network plugin does \
         so when it starts: find out what turned it off.",
    ),
    scope: "Every kernel. In iptables and nftables mode the SYN is dropped, in IPVS mode the SYN-ACK of a pod.",
    hooks: &[&[Hook::RouteError], &[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: forwarding_off,
};

pub(super) const UNREACHABLE: Row = Row {
    cause: Cause::RouteUnreachable,
    group: Group::Network,
    summary: "There is no route for the packet, or only an unreachable, prohibit or blackhole route.",
    proof: "ip_error was called for the packet, with the error of its route, while forwarding was on; or the packet was freed in \
            ip6_pkt_drop (IPv6), or in dst_discard, to which blackhole routes lead; or the backend's listener dropped the SYN \
            while none of its queues was full, and its network namespace has no route back to the client.",
    advice: Some(
        "Run `ip route get` for the destination: a route of the network plugin is missing, or a deliberate blackhole route \
         matches (Calico adds these for its own blocks). Where the backend has no route back, run it in the backend's network \
         namespace.",
    ),
    scope: "Every kernel. In iptables and nftables mode for the SYN, in every mode for the SYN-ACK. IPVS looks up the route to a \
            real server itself: see ipvs.xmit-no-route.",
    hooks: &[&[Hook::RouteError], &[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: |case| unreachable(case).or_else(|| no_route_back(case)),
};

/// The functions in which IPv6 frees a packet without a route (`net/ipv6/route.c`, 3.10 to 7.3).
const NO_ROUTE: [&str; 3] = ["ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit"];

/// The functions that free packets whose route is a blackhole, or has lost its device (`net/core/dst.c`, 3.10 to 7.3).
const DISCARD: [&str; 2] = ["dst_discard", "dst_discard_out"];

fn forwarding_off(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    // A SYN that a pod would have to forward has an address that the pod lacks: its forwarding setting is not at fault.
    if freed.event.part == Part::Syn && freed.netns != case.flow.netns {
        return None;
    }
    let (device, mut evidence) = match read_by(case, Hook::RouteError, freed) {
        Some((step, settings)) => {
            if settings.have & route::FORWARDING == 0 || settings.forwarding != 0 {
                return None;
            }
            let device = device(step);
            let mut evidence = vec![Evidence::seen(
                Key::Forwarding,
                format!("{} (net.ipv4.conf.{device}.forwarding)", settings.forwarding),
                step.event.hook,
            )];
            if settings.have & route::FORWARDING_ALL != 0 {
                evidence.push(Evidence::seen(
                    Key::ForwardingAll,
                    settings.forwarding_all.to_string(),
                    step.event.hook,
                ));
            }
            (device, evidence)
        }
        None => (device(freed), vec![forwarding_off_v6(case, freed)?]),
    };
    evidence.extend(evidence::dropped(freed, case.facts));
    let (packet, destination) = (packet(freed), freed.event.tuple.destination());
    if case.flow.is_on_node(&freed.event) {
        return Some(Proof::new(
            format!(
                "The {packet} came in through {device} and was to be forwarded to {destination}, but forwarding is off there: it \
                 was silently dropped."
            ),
            evidence,
        ));
    }
    let netns = freed.event.netns;
    let explanation = format!(
        "The {packet} came into another network namespace (netns {netns}) through {device} and was to be forwarded to \
         {destination}, but forwarding is off in that namespace: it was silently dropped. This node's own setting does not matter \
         there."
    );
    let setting = if freed.event.tuple.is_v6() {
        "net.ipv6.conf.all.forwarding"
    } else {
        "net.ipv4.ip_forward"
    };
    Some(Proof::new(explanation, evidence).advise(format!(
        "If network namespace {netns} is meant to forward, turn forwarding on there: \
         `nsenter -n -t $(lsns -rno pid {netns} | head -1) sysctl -w {setting}=1`."
    )))
}

/// Evidence that forwarding is off for IPv6. `ip6_forward` also drops packets for other reasons; since 5.18, only packets with
/// some source addresses share this one's drop reason.
fn forwarding_off_v6(case: &Case<'_>, freed: &Step) -> Option<Evidence> {
    let IpAddr::V6(source) = freed.event.tuple.saddr.ip() else {
        return None;
    };
    let refused = source.is_unspecified()
        || source.is_multicast()
        || source.is_loopback()
        || source.is_unicast_link_local();
    let netns = case.facts.netns.get(&freed.event.netns)?;
    let setting = "net.ipv6.conf.all.forwarding";
    let value = netns.sysctls.number(setting)?;
    let off = value == 0
        && !refused
        && reason(case, freed).is_none_or(|reason| reason == "IP_INADDRERRORS")
        && freed::is_in(case, freed, &["ip6_forward"]);
    off.then(|| Evidence::read(Key::Forwarding, format!("{value} ({setting})"), "/proc/sys"))
}

/// Proves that a listener dropped the SYN for lack of a route back. It looks up the route of its SYN-ACK before it keeps the
/// SYN (`tcp_conn_request`, `inet_csk_route_req`, 4.4 to 7.3).
fn no_route_back(case: &Case<'_>) -> Option<Proof> {
    let (step, listener) = tcp::refused_without_a_full_queue(case)?;
    let client = step.event.tuple.saddr.ip();
    let lookup = freed::of_answer(case, step);
    let Some(Route::None(_)) = case.facts.route(&lookup) else {
        return None;
    };
    let mut evidence = tcp::queues(case, step, listener);
    evidence.extend(route_evidence(case, &lookup));
    let owner = tcp::owner(case.flow, step);
    Some(Proof::new(
        format!(
            "{} ({}) dropped the SYN: it has no route back to {client}.",
            capitalized(owner),
            step.event.tuple.destination(),
        ),
        evidence,
    ))
}

fn unreachable(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    let destination = freed.event.tuple.daddr.ip();
    let mut evidence = Vec::new();
    let why = if let Some((step, settings)) = read_by(case, Hook::RouteError, freed) {
        let known = route::FORWARDING | route::ERROR;
        if settings.have & known != known || settings.forwarding == 0 {
            return None;
        }
        let errno = Errno::from_raw(settings.error);
        evidence.push(Evidence::seen(
            Key::RouteError,
            format!("{destination}: {errno:?} ({})", errno.desc()),
            step.event.hook,
        ));
        match errno {
            Errno::EHOSTUNREACH => format!("the route to {destination} is an unreachable route"),
            Errno::EACCES => format!("the route to {destination} is a prohibit route"),
            Errno::EINVAL => format!("the route to {destination} is a blackhole route"),
            _ => format!("there is no route to {destination}"),
        }
    } else if freed::is_in(case, freed, &NO_ROUTE) {
        format!("there is no route to {destination}")
    } else if freed::is_in(case, freed, &DISCARD) {
        format!("the route to {destination} is a blackhole route, or its device is gone")
    } else {
        return None;
    };
    evidence.extend(route_evidence(case, &freed::ahead(case, freed)));
    if case.situation == Situation::Refused {
        evidence.extend(evidence::icmp(case.flow));
    }
    evidence.extend(evidence::dropped(freed, case.facts));
    Some(Proof::new(
        format!("The {} could not be forwarded: {why}.", packet(freed)),
        evidence,
    ))
}
