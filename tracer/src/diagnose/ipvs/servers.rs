//! A service that has real servers, but none that takes another connection.

use std::net::SocketAddr;

use tracer_common::{
    hook::Hook,
    record::{IpvsDest, IpvsDests, ipvs_dest},
};

use crate::diagnose::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};

pub(super) const DEST_OVERLOADED: Row = Row {
    cause: Cause::IpvsDestOverloaded,
    says: "Every real server of the virtual service is over its connection threshold.",
    proof: "ip_vs_leave was reached because the scheduler found nothing; the service's list of real servers was read \
            whole at that moment, some have weight, and every one of those is marked as overloaded.",
    advice: Some(
        "Raise the thresholds (`ipvsadm -e … -x`, `-y`), add endpoints, or find out why connections pile up: with \
         `ipvsadm -Ln --thresholds` and `ipvsadm -Lnc`. kube-proxy sets no thresholds, so somebody else has.",
    ),
    occurs: "IPVS with thresholds, on every kernel. Before 5.11, without BTF for modules, the thresholds themselves cannot \
             be read; the marks can.",
    hooks: &[&[Hook::IpvsLeave]],
    find: overloaded,
};

/// All real servers of the service as the kernel had them when its scheduler found none, if they could be read.
///
/// Where the kernel does not describe its structs, the list is where it always was (4.1 to 6.18) if what was found
/// there are the very servers that the kernel prints for this service.
pub(in crate::diagnose) fn known<'a>(case: &Case<'a>) -> Option<&'a IpvsDests> {
    let decision = case.decision();
    let (service, dests) = (decision.left?, decision.dests?);
    if dests.complete == 0 {
        return None;
    }
    let is_right = if service.num_dests == u32::MAX {
        let table = case.netns()?.service(case.flow.node())?;
        let printed = |address: SocketAddr| table.real_servers.iter().any(|server| server.address == address);
        u32::try_from(table.real_servers.len()) == Ok(dests.counted)
            && listed(dests).all(|dest| printed(address(dest)))
    } else {
        service.num_dests == dests.counted
    };
    is_right.then_some(dests)
}

/// The real servers one by one.
pub(super) fn evidence(dests: &IpvsDests) -> impl Iterator<Item = Evidence> {
    listed(dests).map(|dest| {
        let mut parts = Vec::new();
        if dest.have & ipvs_dest::WEIGHT != 0 {
            parts.push(format!("weight {}", dest.weight));
        }
        if dest.have & ipvs_dest::CONNS != 0 {
            parts.push(format!("{} connections", dest.conns));
        }
        if dest.have & ipvs_dest::UPPER != 0 {
            parts.push(match dest.upper {
                0 => "no upper threshold".to_owned(),
                upper => format!("upper threshold {upper}"),
            });
        }
        if dest.have & ipvs_dest::FLAGS != 0 && dest.flags & ipvs_dest::OVERLOAD != 0 {
            parts.push("overloaded".to_owned());
        }
        Evidence::seen(
            format!("real server {}", address(dest)),
            parts.join(", "),
            Hook::IpvsLeave,
        )
    })
}

fn listed(dests: &IpvsDests) -> impl Iterator<Item = &IpvsDest> {
    dests.listed.iter().take(dests.counted as usize)
}

fn address(dest: &IpvsDest) -> SocketAddr {
    SocketAddr::new(dest.addr.ip(), dest.port)
}

fn overloaded(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Refused | Situation::Dropped) {
        return None;
    }
    let dests = known(case)?;
    if dests.with_weight == 0 || dests.overloaded != dests.with_weight {
        return None;
    }
    let node = case.flow.node();
    let which = match dests.with_weight {
        1 => format!("The only real server of the IPVS service {node} that has weight is"),
        several => format!("All {several} real servers of the IPVS service {node} that have weight are"),
    };
    Some(Proof {
        explanation: format!(
            "{which} over the connection threshold, so there is nowhere to send the SYN to."
        ),
        evidence: evidence(dests)
            .chain([Evidence::seen(
                "the scheduler found no real server",
                "ip_vs_leave was reached",
                Hook::IpvsLeave,
            )])
            .chain(case.decision().evidence_of_verdict())
            .chain(evidence::icmp(case.flow))
            .collect(),
    })
}
