//! A packet caught in a routing loop, or whose TTL expired before it arrived.

use std::net::SocketAddr;

use tracer_common::{hook::Hook, tcp::Part};

use super::freed;
use crate::{
    decode::event::{Event, Payload},
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
    flow::{model::Step, refusal},
};

pub(super) const LOOP: Row = Row {
    cause: Cause::RouteLoop,
    group: Group::Network,
    summary: "The packet circulated in a routing loop until its TTL expired.",
    proof: "The packet came into the same network namespace through the same device at least twice, with the same destination \
            (a SYN-ACK: the same source) and a lower TTL each time, and both times left through the same output device. A single \
            return proves nothing.",
    advice: Some(
        "Two hosts send packets for this address to each other. Run `ip route get` for the address on each of them, in the network \
         namespaces of the path: usually the host that should have the address has lost it, and its default route leads back.",
    ),
    scope: "Every kernel and dataplane, where a network namespace of this machine is part of the loop. Not detectable in \
            recordings made by versions of tracer that did not record the TTL.",
    hooks: &[&[Hook::NetifReceive], &[Hook::DevStartXmit]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: routing_loop,
};

pub(super) const TTL_EXCEEDED: Row = Row {
    cause: Cause::RouteTtlExceeded,
    group: Group::Network,
    summary: "The packet's TTL (IPv6: hop limit) expired on the path; it was dropped, and its sender gets an ICMP error.",
    proof: "The kernel sent the ICMP error \"TTL exceeded\" (IPv6: \"hop limit exceeded\") about the packet, and the packet was not seen after \
            that. No routing loop was seen.",
    advice: Some(
        "Check the sender's initial TTL (net.ipv4.ip_default_ttl, net.ipv6.conf.all.hop_limit), and whether rules change \
         it (`iptables -t mangle -S`). If it is the usual 64 or more, the packet is probably looping outside this node: \
         run `traceroute` to the destination.",
    ),
    scope: "Every kernel, where a network namespace of this machine forwards the packet. IPVS checks the TTL itself: see \
            ipvs.xmit-ttl.",
    hooks: &[&[Hook::IcmpSend]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: ttl_exceeded,
};

/// A packet that came in again.
struct Circle<'a> {
    /// The first two times it came in.
    arrivals: [(&'a Step, u32); 2],
    /// The step at which it left, the same device both times.
    left: &'a Step,
    /// The number of times it came in there.
    rounds: usize,
    /// Its last TTL there.
    last_ttl: u32,
}

/// The place of a packet at a device: the namespace and the device, and the packet itself. On a node of the loop conntrack gives the
/// packet another source port each time, because its entry of the last round holds the tuple.
fn place(step: &Step) -> (u32, u32, Part, SocketAddr) {
    let event = &step.event;
    (event.netns, event.ifindex, event.part, backend(event))
}

/// The end of the connection that stays the same in a loop.
fn backend(event: &Event) -> SocketAddr {
    match event.part {
        Part::SynAck => event.tuple.source(),
        _ => event.tuple.destination(),
    }
}

impl<'a> Circle<'a> {
    fn of(case: &Case<'a>) -> Option<Self> {
        let steps: Vec<&Step> = case
            .steps()
            .filter(|step| step.event.outer.is_none() && step.event.netns != 0 && step.event.ifindex != 0)
            .collect();
        let arrival = |step: &'a Step| match &step.event.payload {
            Payload::Arrival(arrival) if step.event.hook == Hook::NetifReceive => Some((step, arrival.ttl)),
            _ => None,
        };
        let arrivals: Vec<(&Step, u32)> = steps.iter().filter_map(|step| arrival(step)).collect();
        arrivals.iter().find_map(|&(first, ttl)| {
            // The TTL of the same packet falls by the number of hops in the loop on each round.
            let mut rounds = vec![(first, ttl)];
            for &(step, ttl) in &arrivals {
                let last = rounds.last().map_or(0, |&(_, last)| last);
                if step.event.time_ns > first.event.time_ns && place(step) == place(first) && ttl < last {
                    rounds.push((step, ttl));
                }
            }
            let [one, other, ..] = rounds.as_slice() else {
                return None;
            };
            // It must leave before it comes in again.
            let left_after = |(from, _): &(&'a Step, u32), until: u64| {
                steps.iter().copied().find(|step| {
                    let event = &step.event;
                    event.hook == Hook::DevStartXmit
                        && (event.netns, event.part, backend(event))
                            == (from.event.netns, from.event.part, backend(&from.event))
                        && (from.event.time_ns..until).contains(&event.time_ns)
                })
            };
            let left = left_after(one, other.0.event.time_ns)?;
            let again = left_after(
                other,
                rounds.get(2).map_or(u64::MAX, |third| third.0.event.time_ns),
            )?;
            (left.event.ifindex == again.event.ifindex).then(|| Self {
                arrivals: [*one, *other],
                left,
                rounds: rounds.len(),
                last_ttl: rounds.last().map_or(0, |&(_, ttl)| ttl),
            })
        })
    }
}

fn routing_loop(case: &Case<'_>) -> Option<Proof> {
    if !matches!(
        case.situation,
        Situation::Dropped | Situation::Refused | Situation::Silent | Situation::Late
    ) {
        return None;
    }
    let circle = Circle::of(case)?;
    let [(first, ttl), (second, next)] = circle.arrivals;
    let destination = first.event.tuple.destination();
    let packet = freed::packet(first);
    let mut evidence = vec![
        Evidence::seen(
            Key::CameBack,
            format!(
                "{} times through {}, TTL {ttl}, {next} … {}",
                circle.rounds,
                evidence::place(second),
                circle.last_ttl
            ),
            Hook::NetifReceive,
        ),
        Evidence::seen(Key::LeftAgainBy, evidence::place(circle.left), Hook::DevStartXmit),
    ];
    evidence.extend(time_exceeded(case, first.event.part).and_then(icmp));
    evidence.extend(
        case.dropped
            .into_iter()
            .flat_map(|step| evidence::dropped(step, case.facts)),
    );
    Some(Proof::new(
        format!(
            "The {packet} to {destination} looped: it came in through {} {} times and was sent on through {} \
             again, while its TTL fell from {ttl} to {}.",
            evidence::place(first),
            circle.rounds,
            evidence::place(circle.left),
            circle.last_ttl,
        ),
        evidence,
    ))
}

/// The last step at which the kernel reported that the TTL of such a packet had expired.
pub(in crate::diagnose) fn time_exceeded<'a>(case: &Case<'a>, part: Part) -> Option<&'a Step> {
    case.steps()
        .rfind(|step| step.event.part == part && refusal::is_time_exceeded(&step.event))
}

/// The ICMP error of a step as evidence.
fn icmp(step: &Step) -> Option<Evidence> {
    let Payload::Icmp(error) = &step.event.payload else {
        return None;
    };
    let name = evidence::icmp_name(error, step.event.tuple.is_v6());
    Some(Evidence::seen(Key::IcmpError, name, step.event.hook))
}

fn ttl_exceeded(case: &Case<'_>) -> Option<Proof> {
    if !matches!(
        case.situation,
        Situation::Dropped | Situation::Refused | Situation::Silent | Situation::Late
    ) {
        return None;
    }
    let wanted = case.dropped.map_or(Part::Syn, |step| step.event.part);
    let ended = time_exceeded(case, wanted)?;
    let is_same = |step: &&Step| step.event.skb == ended.event.skb && step.event.part == ended.event.part;
    // The packet that was dropped must be this one, and it must not have gone on.
    let is_another = case.dropped.is_some_and(|dropped| !is_same(&dropped));
    let mut after = case
        .steps()
        .filter(is_same)
        .filter(|step| step.event.time_ns > ended.event.time_ns);
    if is_another || after.any(|step| step.event.hook.shows_progress()) {
        return None;
    }
    let last = case.steps().filter(is_same).rfind(|step| {
        matches!(step.event.payload, Payload::Arrival(_)) && step.event.time_ns <= ended.event.time_ns
    });
    let ttl = last.and_then(|step| match &step.event.payload {
        Payload::Arrival(arrival) => Some(arrival.ttl),
        _ => None,
    });
    let whose = if case.flow.is_on_node(&ended.event) {
        "This node".to_owned()
    } else {
        format!("The network namespace {}", ended.event.netns)
    };
    let mut evidence: Vec<Evidence> = icmp(ended).into_iter().collect();
    evidence.extend(last.zip(ttl).map(|(step, ttl)| {
        Evidence::seen(
            Key::Ttl,
            format!("{ttl} when it came in through {}", evidence::place(step)),
            Hook::NetifReceive,
        )
    }));
    let drops = case
        .steps()
        .filter(is_same)
        .flat_map(|step| evidence::dropped(step, case.facts));
    evidence.extend(drops);
    let came = ttl.map_or_else(String::new, |ttl| format!(" It had come in with TTL {ttl}."));
    Some(Proof::new(
        format!(
            "{whose} was to forward the {} to {}, but its TTL expired there: it was dropped, and its sender gets an ICMP \
             error.{came}",
            freed::packet(ended),
            ended.event.tuple.destination(),
        ),
        evidence,
    ))
}
