//! A SYN for which IPVS has no service, or whose service has no usable real server.

use tracer_common::{hook::Hook, record::IpvsDests};

use super::{decision::REQUEST, servers};
use crate::{
    decode::event::text,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
        words::count,
    },
};

const PROC_IP_VS: &str = "/proc/net/ip_vs";

pub(super) const NO_SERVICE: Row = Row {
    cause: Cause::IpvsNoService,
    group: Group::IpvsServers,
    summary: "IPVS has no virtual service for this address and port in this network namespace.",
    proof: "IPVS looked up the connection, found none, went on without scheduling (tcp_conn_schedule returned 1), accepted \
            the SYN, and the node's own TCP answered with RST.",
    advice: Some(
        "Find out why there is none: check kube-proxy's log and its --nodeport-addresses, and run `ipvsadm -Ln` in this network \
         namespace.",
    ),
    scope: "IPVS, on every kernel, in a network namespace with another service; without any, IPVS sees no packets.",
    hooks: &[REQUEST, &[Hook::IpvsTcpSchedule], &[Hook::TcpSendReset]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: no_service,
};

pub(super) const NO_DESTINATION: Row = Row {
    cause: Cause::IpvsNoDestination,
    group: Group::IpvsServers,
    summary: "The virtual service has no real server, only draining ones (weight 0), or none that its scheduler may use for this \
              client.",
    proof: "ip_vs_leave was reached because the scheduler found no real server, and the service has none, or only ones of weight \
            0; or the complete list of its real servers, read at that moment, has one with nonzero weight that is not \
            overloaded: the scheduler refused this client.",
    advice: Some(
        "The service has no usable endpoint on this node: check its endpoints and their readiness, and \
         externalTrafficPolicy: Local.",
    ),
    scope: "IPVS, on every kernel.",
    hooks: &[&[Hook::IpvsLeave]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: no_destination,
};

fn no_destination(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Refused | Situation::Dropped) {
        return None;
    }
    let (flow, decision) = (case.flow, case.decision());
    let service = decision.left?;
    if let Some(dests) = servers::known(case)
        && dests.overloaded < dests.with_weight
    {
        return Some(none_for_client(case, dests));
    }
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
            "The virtual service {} has {servers}; IPVS {} the SYN.",
            flow.node(),
            case.refused_or_dropped()
        ),
        evidence,
    ))
}

/// The proof where the scheduler found no real server, although one has nonzero weight and is not overloaded.
fn none_for_client(case: &Case<'_>, dests: &IpvsDests) -> Proof {
    let (flow, decision) = (case.flow, case.decision());
    let node = flow.node();
    let seen = decision.left.map(|service| text(&service.scheduler));
    let printed = || Some(case.netns()?.service(node)?.scheduler.clone());
    let scheduler = seen.filter(|name| !name.is_empty()).or_else(printed);
    let usable = dests.with_weight - dests.overloaded;
    let others = match usable {
        1 => format!("1 of {} is usable", count(dests.counted, "real server")),
        usable => format!("{usable} of {} are usable", count(dests.counted, "real server")),
    };
    let name = scheduler.as_deref().unwrap_or("of the service");
    // `ip_vs_sh_schedule`, `ip_vs_mh_schedule`, `ip_vs_dh_schedule`, `ip_vs_ovf_schedule` (`net/netfilter/ipvs`, 3.10 to 7.3).
    let (why, advice) = match name {
        "sh" | "mh" => (
            "it maps this client to a real server that is draining or overloaded, and has no fallback",
            format!(
                "Let the scheduler fall back to another real server: `ipvsadm -E -t {node} -s {name} -b {name}-fallback`, or \
                 remove the draining real server from the service. kube-proxy resets manual changes: change \
                 ipvs.scheduler in its configuration to one without hashing (rr, lc)."
            ),
        ),
        "dh" => (
            "it maps this destination to one real server, which is draining or overloaded",
            "Use another scheduler: dh has one real server for each destination, and no fallback.".to_owned(),
        ),
        "ovf" => (
            "each usable real server has more active connections than its weight",
            "Raise the weights: with ovf, a real server accepts as many active connections as its weight.".to_owned(),
        ),
        _ => (
            "tracer could not identify the reason; a real server may have just become usable",
            "If it happens again, compare `ipvsadm -Ln` and `ipvsadm -Ln --thresholds` with the scheduler's rules.".to_owned(),
        ),
    };
    let result = Evidence::seen(
        Key::IpvsSchedulerResult,
        format!("{name}: no real server for this client, ip_vs_leave was reached"),
        Hook::IpvsLeave,
    );
    Proof::new(
        format!(
            "The IPVS scheduler {name} found no real server of {node} for this client, although {others}: {why}. IPVS {} the SYN.",
            case.refused_or_dropped()
        ),
        servers::evidence(dests)
            .chain([result])
            .chain(decision.evidence_of_verdict())
            .chain(evidence::icmp(flow)),
    )
    .advise(advice)
}

/// The number of real servers of the service that found none for the SYN, if all are draining (weight 0). `None` if one has
/// nonzero weight, or if that is unknown.
pub(in crate::diagnose) fn draining(case: &Case<'_>, num_dests: u32) -> Option<u64> {
    Some(Servers::of(case, num_dests)?.draining)
}

/// The real servers of a service that has none with nonzero weight.
struct Servers {
    /// The number of real servers, all with weight 0.
    draining: u64,
    /// The file that shows it, if the kernel's own list was not read.
    file: Option<&'static str>,
}

impl Servers {
    /// The servers; `None` if one of the service has nonzero weight, or if that is unknown.
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
        // Servers with nonzero weight may be over their thresholds, but that was not seen.
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
