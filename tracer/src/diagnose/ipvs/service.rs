//! A SYN for which IPVS has no service, or whose service has no usable real server.

use tracer_common::hook::Hook;

use super::{decision::REQUEST, servers};
use crate::diagnose::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Row},
    words::count,
};

const PROC_IP_VS: &str = "/proc/net/ip_vs";

pub(super) const NO_SERVICE: Row = Row {
    cause: Cause::IpvsNoService,
    group: Group::IpvsServers,
    summary: "IPVS has no virtual service for this address and port in this network namespace.",
    proof: "IPVS looked up the connection, found none, went on without scheduling (tcp_conn_schedule returned 1), accepted \
            the SYN, and the node's own TCP answered with RST.",
    advice: Some(
        "kube-proxy created no virtual service for this address and port: check its log, --nodeport-addresses, and \
         `ipvsadm -Ln` in this network namespace.",
    ),
    scope: "IPVS, on every kernel, in a network namespace with another service; without any, IPVS sees no packets.",
    hooks: &[REQUEST, &[Hook::IpvsTcpSchedule], &[Hook::TcpSendReset]],
    absence: Absence::Nothing,
    detect: no_service,
};

pub(super) const NO_DESTINATION: Row = Row {
    cause: Cause::IpvsNoDestination,
    group: Group::IpvsServers,
    summary: "The virtual service has no real server, or only draining ones (weight 0).",
    proof: "ip_vs_leave was reached because the scheduler found no real server, and the service has none or only ones of \
            weight 0.",
    advice: Some(
        "The service has no usable endpoint on this node: check its endpoints and their readiness, and \
         externalTrafficPolicy: Local.",
    ),
    scope: "IPVS, on every kernel.",
    hooks: &[&[Hook::IpvsLeave]],
    absence: Absence::Nothing,
    detect: no_destination,
};

fn no_destination(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Refused | Situation::Dropped) {
        return None;
    }
    let (flow, decision) = (case.flow, case.decision());
    let service = decision.left?;
    let Servers { draining, file } = Servers::of(case, service.num_dests)?;
    let value = match draining {
        0 => "no real server".to_owned(),
        draining => format!("{} of weight 0, no other", count(draining, "real server")),
    };
    let mut evidence = vec![match file {
        None => Evidence::seen(Key::VirtualService, value, Hook::IpvsLeave),
        Some(file) => Evidence::read(Key::VirtualService, value, file),
    }];
    evidence.push(Evidence::seen(
        Key::IpvsSchedulerResult,
        "no real server: ip_vs_leave was reached",
        Hook::IpvsLeave,
    ));
    evidence.extend(decision.evidence_of_verdict());
    evidence.extend(evidence::icmp(flow));
    let servers = match draining {
        0 => "no real server".to_owned(),
        1 => "1 real server and it is draining (weight 0)".to_owned(),
        draining => format!("{draining} real servers and all are draining (weight 0)"),
    };
    Some(Proof::new(
        format!(
            "The IPVS service {} has {servers}; IPVS {} the SYN.",
            flow.node(),
            case.refused_or_dropped()
        ),
        evidence,
    ))
}

/// How many real servers, all of weight 0, the service has that found none for the SYN. `None` if one has weight, or if that is
/// not known.
pub(in crate::diagnose) fn draining(case: &Case<'_>, num_dests: u32) -> Option<u64> {
    Some(Servers::of(case, num_dests)?.draining)
}

/// The real servers of a service that has none with weight.
struct Servers {
    /// How many there are, each with weight 0.
    draining: u64,
    /// The file that shows it, if the kernel's own list was not read.
    file: Option<&'static str>,
}

impl Servers {
    /// `None` if the service has a server with weight, or that is not known.
    fn of(case: &Case<'_>, num_dests: u32) -> Option<Self> {
        if num_dests == 0 {
            return Some(Self {
                draining: 0,
                file: None,
            });
        }
        if let Some(dests) = servers::known(case) {
            return (dests.counted == 0 || dests.with_weight == 0).then_some(Self {
                draining: dests.counted.into(),
                file: None,
            });
        }
        // Servers with weight may be over their thresholds, but that was not seen.
        let servers = &case.netns()?.service(case.flow.node())?.real_servers;
        servers.iter().all(|server| server.weight == 0).then_some(Self {
            draining: servers.len() as u64,
            file: Some(PROC_IP_VS),
        })
    }
}

fn no_service(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Refused {
        return None;
    }
    let (flow, decision) = (case.flow, case.decision());
    let declined = decision.looked_up
        && decision.found.is_none()
        && decision.scheduling == Some(1)
        && decision.service.is_none()
        && decision.verdict() == Some(1);
    let reset = case.steps().find(|step| {
        step.event.hook == Hook::TcpSendReset
            && step.event.netns == flow.netns
            && step.event.tuple == flow.original
    })?;
    declined.then(|| {
        Proof::new(
            format!(
                "IPVS has no virtual service for {}, so the SYN went to the node's own TCP, where nothing listens.",
                flow.node()
            ),
            decision.evidence_of_verdict().into_iter().chain([
                Evidence::seen(
                    Key::IpvsNoService,
                    "none: tcp_conn_schedule returned 1",
                    Hook::IpvsTcpSchedule,
                ),
                Evidence::seen(Key::RstSentBy, evidence::place(reset), Hook::TcpSendReset),
            ]),
        )
    })
}
