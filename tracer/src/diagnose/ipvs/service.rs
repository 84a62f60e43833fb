//! A SYN for which IPVS has no service, or whose service has nowhere to send it to.

use tracer_common::hook::Hook;

use super::servers;
use crate::diagnose::{
    case::{Case, Proof, Situation},
    catalogue::{ASKED, Row},
    cause::Cause,
    evidence::{self, Evidence},
};

const PROC_IP_VS: &str = "/proc/net/ip_vs";

pub(super) const NO_SERVICE: Row = Row {
    cause: Cause::IpvsNoService,
    says: "IPVS has no virtual service for this address and port in this network namespace.",
    proof: "IPVS looked the connection up, found none, went on without scheduling (tcp_conn_schedule returned 1), let \
            the SYN pass, and the node's own TCP answered with RST.",
    advice: Some(
        "kube-proxy has made no virtual service for this address and port here: look at its log, at \
         --nodeport-addresses, and at `ipvsadm -Ln` in this network namespace.",
    ),
    occurs: "IPVS, on every kernel, in a network namespace that has another service; without any, IPVS is not asked.",
    hooks: &[ASKED, &[Hook::IpvsTcpSchedule], &[Hook::TcpSendReset]],
    find: no_service,
};

pub(super) const NO_DESTINATION: Row = Row {
    cause: Cause::IpvsNoDestination,
    says: "The virtual service has no real server, or none with weight.",
    proof: "ip_vs_leave was reached because the scheduler found nothing, and the service has no real server or all of \
            weight 0.",
    advice: Some(
        "The service has no usable endpoint on this node: look at its endpoints and their readiness, and at \
         externalTrafficPolicy: Local.",
    ),
    occurs: "IPVS, on every kernel.",
    hooks: &[&[Hook::IpvsLeave]],
    find: no_destination,
};

fn no_destination(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Refused | Situation::Dropped) {
        return None;
    }
    let (flow, decision) = (case.flow, case.decision());
    let service = decision.left?;
    let (value, source) = nothing_fit(case, service.num_dests)?;
    let mut evidence = vec![match source {
        None => Evidence::seen("virtual service", value.clone(), Hook::IpvsLeave),
        Some(file) => Evidence::read("virtual service", value.clone(), file),
    }];
    evidence.push(Evidence::seen(
        "the scheduler found no real server",
        "ip_vs_leave was reached",
        Hook::IpvsLeave,
    ));
    evidence.extend(decision.evidence_of_verdict());
    evidence.extend(evidence::icmp(flow));
    Some(Proof {
        explanation: format!(
            "The IPVS service {} has {value}, so there is nowhere to send the SYN to.",
            flow.node()
        ),
        evidence,
    })
}

/// What of the service's real servers left the scheduler nothing to choose, and the file that shows it if the kernel's
/// own list was not read.
fn nothing_fit(case: &Case<'_>, num_dests: u32) -> Option<(String, Option<&'static str>)> {
    let weightless = |servers: usize| format!("{servers} real servers, all of weight 0");
    if num_dests == 0 {
        return Some(("no real server".to_owned(), None));
    }
    if let Some(dests) = servers::known(case) {
        return match (dests.counted, dests.with_weight) {
            (0, _) => Some(("no real server".to_owned(), None)),
            (servers, 0) => Some((weightless(servers as usize), None)),
            _ => None,
        };
    }
    // If there are servers with weight, they may be over their limits, but that was not seen.
    let servers = &case.netns()?.service(case.flow.node())?.real_servers;
    let value = match servers.len() {
        0 => "no real server".to_owned(),
        several if servers.iter().all(|server| server.weight == 0) => weightless(several),
        _ => return None,
    };
    Some((value, Some(PROC_IP_VS)))
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
    declined.then(|| Proof {
        explanation: format!(
            "IPVS has no virtual service for {}, so the SYN went to the node itself, where nothing listens.",
            flow.node()
        ),
        evidence: decision
            .evidence_of_verdict()
            .into_iter()
            .chain([
                Evidence::seen(
                    "IPVS went on without a service",
                    "tcp_conn_schedule returned 1",
                    Hook::IpvsTcpSchedule,
                ),
                Evidence::seen("RST sent by", evidence::place(reset), Hook::TcpSendReset),
            ])
            .collect(),
    })
}
