//! IPVS chose a real server but could not send the SYN to it.
//!
//! `ip_vs_nat_xmit`, `ip_vs_dr_xmit` and `ip_vs_tunnel_xmit` (`net/netfilter/ipvs/ip_vs_xmit.c`, 3.14 to 7.3) call one helper
//! that looks up the route and checks the packet's TTL and the route's MTU, all before the packet is translated or
//! encapsulated. Each failure sends an ICMP error to the client, and the function frees the packet.

use tracer_common::{
    hook::Hook,
    record::{Icmp, TooBig},
};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
    flow::model::{Step, real_server},
};

const HOOKS: &[&[Hook]] = &[
    &[
        Hook::IpvsNatXmit,
        Hook::IpvsNatXmit6,
        Hook::IpvsDirectXmit,
        Hook::IpvsTunnelXmit,
    ],
    &[Hook::IcmpSend, Hook::IcmpSend6],
    &[Hook::KfreeSkb],
];

pub(super) const XMIT_NO_ROUTE: Row = Row {
    cause: Cause::IpvsXmitNoRoute,
    group: Group::IpvsServers,
    summary: "IPVS chose a real server, but the node has no route to it.",
    proof: "Inside ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit), before the SYN was translated or encapsulated, the \
            kernel sent the client \"host unreachable\" or \"network unreachable\", and that function freed the packet; or \
            the packet was not seen again after ip_vs_nat_xmit sent that error.",
    advice: Some(
        "The node cannot reach the pod's address: run `ip route get` for it, and check the network plugin, which should \
         have created the route.",
    ),
    scope: "IPVS, on every kernel.",
    hooks: HOOKS,
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: |case| {
        let failure = Failure::of(case, Situation::Refused, IcmpError::Unreachable)?;
        Some(failure.proof(
            |server| format!("IPVS chose the real server {server}, but this node has no route to it."),
            case,
        ))
    },
};

pub(super) const XMIT_TTL: Row = Row {
    cause: Cause::IpvsXmitTtl,
    group: Group::IpvsServers,
    summary: "The TTL of the SYN expired at IPVS.",
    proof: "Inside ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit), before the SYN was translated or encapsulated, the \
            kernel sent the client \"TTL exceeded\", and that function freed the packet.",
    advice: Some(
        "The SYN arrived with a TTL of 1: look for a routing loop before this node, or for a client that sets a small TTL \
         (IP_TTL, traceroute).",
    ),
    scope: "IPVS, on kernels since 4.10: older ones do not decrement the TTL in IPVS.",
    hooks: HOOKS,
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: |case| {
        // A client that got the error gives up.
        let failure = Failure::of(case, Situation::Refused, IcmpError::TimeExceeded)
            .or_else(|| Failure::of(case, Situation::Dropped, IcmpError::TimeExceeded))?;
        Some(failure.proof(
            |server| {
                format!("The TTL of the SYN expired: IPVS dropped it instead of sending it to the real server {server}.")
            },
            case,
        ))
    },
};

pub(super) const XMIT_MTU: Row = Row {
    cause: Cause::IpvsXmitMtu,
    group: Group::IpvsServers,
    summary: "The SYN is larger than the MTU of the route to the real server and must not be fragmented.",
    proof: "Inside ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit), before the SYN was translated or encapsulated, the \
            kernel sent the client \"fragmentation needed\" or \"packet too big\", and that function freed the packet.",
    advice: Some(
        "Check the MTU of the route to the pod (`ip route get`, `ip link`) and how much the network plugin subtracts for its \
         tunnel. A SYN is that large only with data in it (TCP Fast Open), or where the MTU is far too small.",
    ),
    scope: "IPVS, on every kernel.",
    hooks: HOOKS,
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: |case| {
        let failure = Failure::of(case, Situation::Dropped, IcmpError::TooBig)?;
        Some(failure.proof(
            |server| {
                format!(
                    "The SYN is larger than the MTU of the route to the real server {server} and must not be fragmented: \
                     IPVS dropped it."
                )
            },
            case,
        ))
    },
};

/// The functions, by the beginning of their names, which those for IPv6 share.
const XMIT: [&str; 3] = ["ip_vs_nat_xmit", "ip_vs_dr_xmit", "ip_vs_tunnel_xmit"];

/// The ICMP error that the kernel sent to the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IcmpError {
    Unreachable,
    TimeExceeded,
    TooBig,
}

impl IcmpError {
    fn of(icmp: Icmp, is_v6: bool) -> Option<Self> {
        Some(match (is_v6, icmp.icmp_type, icmp.code) {
            (false, 3, 4) | (true, 2, _) => Self::TooBig,
            (false, 3, 0 | 1) | (true, 1, 0 | 3) => Self::Unreachable,
            (false, 11, 0) | (true, 3, 0) => Self::TimeExceeded,
            _ => return None,
        })
    }
}

/// The buffer of a SYN whose last sight is the ICMP error, sent after `ip_vs_nat_xmit` had begun. The kernel skips a probe that
/// fires while the same program runs on that CPU, so the drop may go unseen. An ICMP error about a SYN that is translated
/// already has another tuple, so this one was sent inside that function; the other functions translate nothing.
fn unseen_drop(case: &Case<'_>) -> Option<u64> {
    let mut steps = case.steps().rev();
    let icmp = steps.next().filter(|step| {
        matches!(step.event.payload, Payload::Icmp(_)) && step.event.tuple == case.flow.original
    })?;
    let sent = steps.next().filter(|step| {
        matches!(step.event.hook, Hook::IpvsNatXmit | Hook::IpvsNatXmit6) && step.event.skb == icmp.event.skb
    })?;
    Some(sent.event.skb)
}

/// A SYN that ended inside the function that was to send it.
struct Failure<'a> {
    sent: &'a Step,
    icmp: &'a Icmp,
    too_big: Option<&'a TooBig>,
}

impl<'a> Failure<'a> {
    /// The failure with this ICMP error, if there was one.
    fn of(case: &Case<'a>, situation: Situation, error: IcmpError) -> Option<Self> {
        if case.situation != situation {
            return None;
        }
        let skb = match case.dropped {
            Some(dropped) => {
                let function = case.dropped_in()?;
                let is_ours = XMIT.iter().any(|name| function.starts_with(name));
                is_ours.then_some(dropped.event.skb)?
            }
            None => unseen_drop(case)?,
        };
        let (mut sent, mut icmp, mut too_big) = (None, None, None);
        let before = case
            .steps()
            .take_while(|step| case.dropped.is_none_or(|dropped| !std::ptr::eq(*step, dropped)))
            .filter(|step| step.event.skb == skb && step.event.tuple == case.flow.original);
        for step in before {
            match &step.event.payload {
                Payload::IpvsConn(_) if step.event.hook.is_ipvs_xmit() => {
                    (sent, icmp, too_big) = (Some(step), None, None);
                }
                Payload::Icmp(seen) => icmp = Some(seen),
                Payload::TooBig(seen) => too_big = Some(seen),
                _ => {}
            }
        }
        let (sent, icmp) = (sent?, icmp?);
        (IcmpError::of(*icmp, case.flow.original.is_v6()) == Some(error)).then_some(Self {
            sent,
            icmp,
            too_big,
        })
    }

    fn proof(&self, explain: impl FnOnce(&str) -> String, case: &Case<'_>) -> Proof {
        let server = match &self.sent.event.payload {
            Payload::IpvsConn(conn) => real_server(conn),
            _ => None,
        };
        let server = server.map_or_else(|| "of its entry".to_owned(), |server| server.to_string());
        let mut evidence = vec![
            Evidence::seen(Key::RealServer, server.clone(), self.sent.event.hook),
            Evidence::seen(
                Key::IcmpToClient,
                evidence::icmp_name(self.icmp, case.flow.original.is_v6()),
                Hook::IcmpSend,
            ),
        ];
        if let Some(sizes) = self.too_big {
            evidence.push(Evidence::seen(
                Key::RouteMtu,
                sizes.mtu.to_string(),
                Hook::IcmpSend,
            ));
            if sizes.length != 0 {
                evidence.push(Evidence::seen(
                    Key::SynLength,
                    sizes.length.to_string(),
                    Hook::IcmpSend,
                ));
            }
        }
        evidence.extend(
            case.dropped
                .into_iter()
                .flat_map(|step| evidence::dropped(step, case.facts)),
        );
        Proof::new(explain(&server), evidence)
    }
}
