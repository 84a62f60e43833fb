//! A client on the node that connects from a loopback address.

use tracer_common::hook::Hook;

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
    facts::{route::Route, route_lookup::RouteLookup},
    flow::model::real_server,
};

pub(super) const LOOPBACK_CLIENT: Row = Row {
    cause: Cause::IpvsLoopbackClient,
    group: Group::IpvsServers,
    summary: "A client on the node connects from a loopback address (127.0.0.1, ::1) and IPVS chose a real server that is not on \
              the node: a packet with a loopback source must not leave the node, and IPVS silently drops it.",
    proof: "The source of the SYN is a loopback address, IPVS sent it with ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit), \
            that function freed it without an ICMP error, and the route to the real server is not local.",
    advice: Some(
        "Connect to an address of the node instead of localhost: NodePorts on loopback addresses do not work in IPVS mode. \
         iptables mode supports them for IPv4 (route_localnet); nftables mode does not.",
    ),
    scope: "IPVS, on every kernel, for clients on the node.",
    hooks: &[
        &[Hook::IpvsNatXmit, Hook::IpvsDirectXmit, Hook::IpvsTunnelXmit],
        &[Hook::KfreeSkb],
    ],
    absence: Absence::Probes,
    light: Light::Hidden,
    detect,
};

/// Proves that IPVS refused a loopback source. `crosses_local_route_boundary` (`net/netfilter/ipvs/ip_vs_xmit.c`, 3.18 to 7.3)
/// does so for a route that is not local, before it looks at anything else in the packet.
fn detect(case: &Case<'_>) -> Option<Proof> {
    let source = case.flow.client().ip();
    if case.situation != Situation::Dropped || !source.is_loopback() {
        return None;
    }
    let dropped = case.dropped?;
    let is_ours = ["ip_vs_nat_xmit", "ip_vs_dr_xmit", "ip_vs_tunnel_xmit"]
        .iter()
        .any(|name| {
            case.dropped_in()
                .is_some_and(|function| function.starts_with(name))
        });
    let is_refused = case
        .steps()
        .any(|step| matches!(step.event.payload, Payload::Icmp(_)) && step.event.skb == dropped.event.skb);
    if !is_ours || is_refused || dropped.event.tuple.source() != case.flow.client() {
        return None;
    }
    let (sent, conn) = case.steps().find_map(|step| match &step.event.payload {
        Payload::IpvsConn(conn) if step.event.hook.is_ipvs_xmit() => Some((step, conn)),
        _ => None,
    })?;
    let server = real_server(conn)?;
    let route = case
        .facts
        .route(&RouteLookup::of_ipvs(case.flow.netns, server.ip()))?;
    if matches!(route, Route::Found(found) if found.is_local()) || matches!(route, Route::None(_)) {
        return None;
    }
    let evidence = [
        Evidence::seen(Key::Source, source.to_string(), sent.event.hook),
        Evidence::seen(Key::RealServer, server.to_string(), sent.event.hook),
        Evidence::read(Key::Route, format!("{}: {route}", server.ip()), "rtnetlink"),
    ];
    Some(Proof::new(
        format!(
            "The client connects from {source}, and IPVS chose the real server {server}, which is not on this node: a packet with a \
             loopback source must not leave the node, so IPVS silently dropped the SYN."
        ),
        evidence.into_iter().chain(evidence::dropped(dropped, case.facts)),
    ))
}
