//! A service whose real servers accept no more connections.

use std::net::SocketAddr;

use tracer_common::{
    hook::Hook,
    record::{IpvsDest, IpvsDests, ipvs_dest},
};

use crate::diagnose::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
    words::count,
};

pub(super) const DEST_OVERLOADED: Row = Row {
    cause: Cause::IpvsDestOverloaded,
    group: Group::IpvsServers,
    summary: "Every real server of the virtual service is over its connection threshold.",
    proof: "ip_vs_leave was reached because the scheduler found no real server; the complete list of real servers was read at \
            that moment, some have nonzero weight, and all of those are marked as overloaded.",
    advice: Some(
        "Raise the thresholds (`ipvsadm -e` with -x and -y), add endpoints, or find out why connections pile up, with \
         `ipvsadm -Ln --thresholds` and `ipvsadm -Lnc`. kube-proxy sets no thresholds: something else did.",
    ),
    scope: "IPVS with thresholds, on every kernel. Before 5.11, without BTF for modules, the thresholds are not readable; the \
            overload marks are.",
    hooks: &[&[Hook::IpvsLeave]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: overloaded,
};

/// All real servers of the service at the moment when its scheduler found none, if they could be read.
///
/// Where the kernel has no BTF for its structs, the list is trusted at its usual offset (4.1 to 6.18) only if what was found
/// there are exactly the servers that the kernel prints for this service.
pub(in crate::diagnose) fn known<'a>(case: &Case<'a>) -> Option<&'a IpvsDests> {
    let decision = case.decision();
    let (service, dests) = (decision.left?, decision.dests?);
    if dests.complete == 0 {
        return None;
    }
    let is_trusted = if service.num_dests == u32::MAX {
        let table = case.netns()?.service(case.flow.node())?;
        let printed = |address: SocketAddr| table.real_servers.iter().any(|server| server.address == address);
        u32::try_from(table.real_servers.len()) == Ok(dests.counted)
            && listed(dests).all(|dest| printed(address(dest)))
    } else {
        service.num_dests == dests.counted
    };
    is_trusted.then_some(dests)
}

/// The real servers one by one.
pub(super) fn evidence(dests: &IpvsDests) -> impl Iterator<Item = Evidence> {
    listed(dests).map(|dest| {
        let mut parts = vec![address(dest).to_string()];
        if dest.have & ipvs_dest::FLAGS != 0 && dest.flags & ipvs_dest::OVERLOAD != 0 {
            parts.push("overloaded".to_owned());
        }
        if dest.have & ipvs_dest::WEIGHT != 0 {
            parts.push(format!("weight {}", dest.weight));
        }
        if dest.have & ipvs_dest::CONNS != 0 {
            parts.push(count(dest.conns, "connection"));
        }
        if dest.have & ipvs_dest::UPPER != 0 {
            parts.push(match dest.upper {
                0 => "no upper threshold".to_owned(),
                upper => format!("upper threshold {upper}"),
            });
        }
        Evidence::seen(Key::RealServer, parts.join(", "), Hook::IpvsLeave)
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
        1 => format!("The only real server of the virtual service {node} with nonzero weight is"),
        several => {
            format!("All {several} real servers of the virtual service {node} with nonzero weight are")
        }
    };
    Some(Proof::new(
        format!(
            "{which} over the connection threshold, so IPVS {} the SYN.",
            case.refused_or_dropped()
        ),
        evidence(dests)
            .chain([Evidence::seen(
                Key::IpvsSchedulerResult,
                "no real server: ip_vs_leave was reached",
                Hook::IpvsLeave,
            )])
            .chain(case.decision().evidence_of_verdict())
            .chain(evidence::icmp(case.flow)),
    ))
}
