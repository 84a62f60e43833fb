//! IPVS chose a real server but could not send the SYN to it.
//!
//! `ip_vs_nat_xmit`, `ip_vs_dr_xmit` and `ip_vs_tunnel_xmit` (`net/netfilter/ipvs/ip_vs_xmit.c`, 3.14 to 7.3) have one helper
//! ask for a route, then look at the packet's TTL and at the route's MTU, all before the packet is translated or wrapped.
//! Each failure tells the sender by ICMP, and the function frees the packet.

use tracer_common::{
    hook::Hook,
    record::{Icmp, TooBig},
};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        catalogue::Row,
        cause::Cause,
        evidence::{self, Evidence},
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
    says: "IPVS chose a real server, but the node has no route to it.",
    proof: "Inside ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit), before the SYN was translated or wrapped, the \
            kernel told the client \"host unreachable\" or \"network unreachable\", and that function freed the packet; or \
            nothing was seen of the packet after ip_vs_nat_xmit said so.",
    advice: Some(
        "The node cannot reach the pod's address: look at `ip route get` for it, and at the network plugin that should \
         have made the route.",
    ),
    occurs: "IPVS, on every kernel.",
    hooks: HOOKS,
    find: |case| {
        let told = Failure::of(case, Situation::Refused, Told::Unreachable)?;
        Some(told.proof(
            |server| format!("IPVS chose the real server {server}, but this node has no route to it."),
            case,
        ))
    },
};

pub(super) const XMIT_TTL: Row = Row {
    cause: Cause::IpvsXmitTtl,
    says: "The SYN's time to live ran out at IPVS.",
    proof: "Inside ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit), before the SYN was translated or wrapped, the \
            kernel told the client \"TTL exceeded\", and that function freed the packet.",
    advice: Some(
        "The SYN came in with a TTL of 1: look for a routing loop before this node, or for a client that sets a small \
         one (IP_TTL, traceroute).",
    ),
    occurs: "IPVS, on kernels after 4.1: before, IPVS did not count the TTL.",
    hooks: HOOKS,
    find: |case| {
        let told = Failure::of(case, Situation::Dropped, Told::TimeExceeded)?;
        Some(told.proof(
            |server| {
                format!(
                    "The SYN's time to live ran out here: IPVS was to send it to the real server {server} and \
                     discarded it."
                )
            },
            case,
        ))
    },
};

pub(super) const XMIT_MTU: Row = Row {
    cause: Cause::IpvsXmitMtu,
    says: "The SYN is larger than the MTU of the route to the real server, and must not be fragmented.",
    proof: "Inside ip_vs_nat_xmit (or ip_vs_dr_xmit, ip_vs_tunnel_xmit), before the SYN was translated or wrapped, the \
            kernel told the client \"fragmentation needed\" or \"packet too big\", and that function freed the packet.",
    advice: Some(
        "Look at the MTU of the route to the pod (`ip route get`, `ip link`) and at what the network plugin takes off for \
         its tunnel. A SYN is that large only with data in it (TCP Fast Open) or where the MTU is far too small.",
    ),
    occurs: "IPVS, on every kernel.",
    hooks: HOOKS,
    find: |case| {
        let told = Failure::of(case, Situation::Dropped, Told::TooBig)?;
        Some(told.proof(
            |server| {
                format!(
                    "The SYN does not fit the route to the real server {server} and may not be fragmented: IPVS \
                     discarded it."
                )
            },
            case,
        ))
    },
};

/// The functions, by what their names begin with: those for IPv6 begin so too.
const XMIT: [&str; 3] = ["ip_vs_nat_xmit", "ip_vs_dr_xmit", "ip_vs_tunnel_xmit"];

/// What the kernel told the sender.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Unreachable,
    TimeExceeded,
    TooBig,
}

impl Told {
    fn of(icmp: Icmp, is_v6: bool) -> Option<Self> {
        Some(match (is_v6, icmp.icmp_type, icmp.code) {
            (false, 3, 4) | (true, 2, _) => Self::TooBig,
            (false, 3, 0 | 1) | (true, 1, 0 | 3) => Self::Unreachable,
            (false, 11, 0) | (true, 3, 0) => Self::TimeExceeded,
            _ => return None,
        })
    }
}

/// The buffer of a SYN that was seen last where the client was told of it, after `ip_vs_nat_xmit` had begun. The kernel skips a
/// program that looks on while the same one is at work on that CPU, so that the end of the buffer may go unseen. What is
/// told about a SYN that was translated already has another tuple, so that this was told inside of that function; the others
/// translate nothing.
fn unseen_end(case: &Case<'_>) -> Option<u64> {
    let mut steps = case.steps().rev();
    let told = steps.next().filter(|step| {
        matches!(step.event.payload, Payload::Icmp(_)) && step.event.tuple == case.flow.original
    })?;
    let sent = steps.next().filter(|step| {
        matches!(step.event.hook, Hook::IpvsNatXmit | Hook::IpvsNatXmit6) && step.event.skb == told.event.skb
    })?;
    Some(sent.event.skb)
}

struct Failure<'a> {
    sent: &'a Step,
    icmp: &'a Icmp,
    too_big: Option<&'a TooBig>,
}

impl<'a> Failure<'a> {
    /// The SYN ended inside the function that was to send it, and that was said.
    fn of(case: &Case<'a>, situation: Situation, told: Told) -> Option<Self> {
        if case.situation != situation {
            return None;
        }
        let skb = match case.discarded {
            Some(discarded) => {
                let discarded_in = case.discarded_in()?;
                let is_ours = XMIT.iter().any(|name| discarded_in.starts_with(name));
                is_ours.then_some(discarded.event.skb)?
            }
            None => unseen_end(case)?,
        };
        let (mut sent, mut icmp, mut too_big) = (None, None, None);
        let before = case
            .steps()
            .take_while(|step| {
                case.discarded
                    .is_none_or(|discarded| !std::ptr::eq(*step, discarded))
            })
            .filter(|step| step.event.skb == skb && step.event.tuple == case.flow.original);
        for step in before {
            match &step.event.payload {
                Payload::IpvsConn(_) if step.event.hook.is_ipvs_xmit() => {
                    (sent, icmp, too_big) = (Some(step), None, None);
                }
                Payload::Icmp(said) => icmp = Some(said),
                Payload::TooBig(said) => too_big = Some(said),
                _ => {}
            }
        }
        let (sent, icmp) = (sent?, icmp?);
        (Told::of(*icmp, case.flow.original.is_v6()) == Some(told)).then_some(Self { sent, icmp, too_big })
    }

    fn proof(&self, explain: impl FnOnce(&str) -> String, case: &Case<'_>) -> Proof {
        let server = match &self.sent.event.payload {
            Payload::IpvsConn(conn) => real_server(conn),
            _ => None,
        };
        let server = server.map_or_else(|| "of its entry".to_owned(), |server| server.to_string());
        let mut evidence = vec![
            Evidence::seen("real server", server.clone(), self.sent.event.hook),
            Evidence::seen(
                "ICMP sent to the client",
                evidence::icmp_name(self.icmp, case.flow.original.is_v6()),
                Hook::IcmpSend,
            ),
        ];
        if let Some(told) = self.too_big {
            evidence.push(Evidence::seen(
                "MTU of the route",
                told.mtu.to_string(),
                Hook::IcmpSend,
            ));
            if told.length != 0 {
                evidence.push(Evidence::seen(
                    "length of the SYN",
                    told.length.to_string(),
                    Hook::IcmpSend,
                ));
            }
        }
        evidence.extend(
            case.discarded
                .into_iter()
                .flat_map(|step| evidence::discarded(step, case.facts)),
        );
        Proof {
            explanation: explain(&server),
            evidence,
        }
    }
}
