//! A frame that carried the MAC address of another device.

use tracer_common::hook::Hook;

use crate::{
    diagnose::{
        case::{Case, Proof},
        cause::Cause,
        evidence::{self, Evidence, Key},
        route::freed,
        row::{Absence, Group, Light, Row},
    },
    facts::{neighbour::mac_text, route::Route, route_lookup::RouteLookup},
};

pub(super) const WRONG_ADDRESS: Row = Row {
    cause: Cause::NeighWrongAddress,
    group: Group::Network,
    summary: "The packet reached its destination in a frame addressed to another MAC address, and was dropped there.",
    proof: "The destination is an address of the network namespace that freed the packet, and the packet was freed with the reason \
            OTHERHOST; or, where the kernel gives no reason, it was freed in ip_rcv_core or ip6_rcv_core, and the sender's \
            neighbour entry for that address has a different MAC address from the device it came in through.",
    advice: Some(
        "Compare `ip neigh` on this node with `ip link` in the pod: delete the stale entry (`ip neigh del`), and find out who \
         wrote it. Usual sources: another pod with the same address, a network plugin that sets permanent entries, or a \
         recreated veth.",
    ),
    scope: "Every kernel and dataplane.",
    hooks: &[&[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect,
};

/// The functions in which IP first processes a packet (`net/ipv4/ip_input.c`, `net/ipv6/ip6_input.c`, 5.10 to 7.3; the
/// compiler may inline the first into the second).
const INPUT: [&str; 4] = ["ip_rcv_core", "ip_rcv", "ip6_rcv_core", "ipv6_rcv"];

fn detect(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    let is_for_another = match freed::reason(case, freed) {
        Some("OTHERHOST") => true,
        None | Some("NOT_SPECIFIED") if freed::is_in(case, freed, &INPUT) => false,
        _ => return None,
    };
    let destination = freed.event.tuple.daddr.ip();
    // IP drops it before a rule can mark it.
    let lookup = RouteLookup::ahead(freed.netns, &freed.event, None);
    let is_local = matches!(case.facts.route(&lookup), Some(Route::Found(route)) if route.is_local());
    if !is_local {
        return None;
    }
    let own = case
        .facts
        .netns
        .get(&freed.event.netns)
        .and_then(|netns| netns.link(freed.event.ifindex))
        .and_then(|link| link.mac);
    let sent_to = case
        .netns()
        .into_iter()
        .flat_map(|netns| &netns.neighbours)
        .find(|entry| entry.address == destination && Some(entry.mac) != own);
    if !is_for_another && (own.is_none() || sent_to.is_none()) {
        return None;
    }
    let device = freed::device(freed);
    let mut evidence = Vec::new();
    if let Some(own) = own {
        let value = format!("{} ({})", mac_text(own), evidence::place(freed));
        evidence.push(Evidence::read(Key::DeviceAddress, value, "rtnetlink"));
    }
    if let Some(entry) = sent_to {
        let value = format!("{} for {destination}", mac_text(entry.mac));
        evidence.push(Evidence::read(Key::NeighbourAddress, value, "rtnetlink"));
    }
    evidence.extend(evidence::dropped(freed, case.facts));
    let addresses = match (sent_to, own) {
        (Some(entry), Some(own)) => format!(
            " This node's neighbour entry for it is {}, but {device} is {}.",
            mac_text(entry.mac),
            mac_text(own)
        ),
        _ => String::new(),
    };
    let proof = Proof::new(
        format!(
            "The {} reached {destination} ({}) in a frame for another MAC address, and was dropped there.{addresses}",
            freed::packet(freed),
            evidence::place(freed),
        ),
        evidence,
    );
    let name = sent_to.and_then(|entry| case.netns()?.link(entry.device));
    Some(match name {
        Some(link) => proof.advise(format!(
            "Delete the wrong entry: `ip neigh del {destination} dev {}`, and find out who wrote it. Usual sources: another pod \
             with the same address, a network plugin that sets permanent entries, or a recreated veth.",
            link.name
        )),
        None => proof,
    })
}
