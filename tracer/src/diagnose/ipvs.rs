//! What IPVS decided about one SYN.
//!
//! `ip_vs_in` (`net/netfilter/ipvs/ip_vs_core.c`, 3.10 to 7.3) looks the connection up, may expire an old entry, may
//! schedule a new one, and transmits. Which of these happened, in which order, and what it returned tell the cause.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, IpvsService, conntrack, ipvs_conn},
};

use super::{
    Finding,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::{
    flow::{
        event::What,
        model::{Flow, Step, real_server},
    },
    node::facts::{Facts, NetnsFacts},
};

const NF_DROP: i32 = 0;
const NF_VERDICT_MASK: i32 = 0xff;
const PROC_IP_VS: &str = "/proc/net/ip_vs";

/// What IPVS did with one SYN.
#[derive(Clone, Copy, Default)]
pub(crate) struct Decision<'flow> {
    /// The hook function itself.
    asked: Option<&'flow Step>,
    /// The entry that the lookup found; `None` if it found none or was not seen.
    found: Option<&'flow IpvsConn>,
    looked_up: bool,
    /// The entry that was expired on the spot.
    expired: Option<&'flow IpvsConn>,
    /// A new connection was about to be scheduled; what `tcp_conn_schedule` returned.
    scheduling: Option<i32>,
    /// The service that was scheduled for.
    service: Option<&'flow IpvsService>,
    /// The scheduler found no real server.
    left: Option<&'flow IpvsService>,
    /// The entry that was transmitted with.
    sent_with: Option<&'flow IpvsConn>,
}

impl<'flow> Decision<'flow> {
    /// Collects what was seen of one SYN.
    pub(crate) fn of(flow: &'flow Flow, attempt: usize) -> Self {
        let mut out = Self::default();
        for step in flow.steps_of(attempt) {
            match (step.event.hook, &step.event.what) {
                (hook, What::Packet) if hook.is_ipvs_request() => out.asked = Some(step),
                (Hook::IpvsLookup, What::IpvsConn(conn)) => {
                    out.looked_up = true;
                    out.found = Some(conn).filter(|conn| conn.conn != 0);
                }
                (Hook::IpvsExpireNow, What::IpvsConn(conn)) => out.expired = Some(conn),
                (Hook::IpvsTcpSchedule, _) => out.scheduling = step.verdict,
                (Hook::IpvsSchedule, What::IpvsService(service)) => out.service = Some(service),
                (Hook::IpvsLeave, What::IpvsService(service)) => out.left = Some(service),
                (Hook::IpvsNatXmit, What::IpvsConn(conn)) => out.sent_with = Some(conn),
                _ => {}
            }
        }
        out
    }

    /// Did the hook function return that the packet is to be dropped?
    fn said_drop(&self) -> bool {
        self.verdict()
            .is_some_and(|verdict| verdict & NF_VERDICT_MASK == NF_DROP)
    }

    fn verdict(&self) -> Option<i32> {
        self.asked.and_then(|step| step.verdict)
    }

    /// Was the SYN sent with an entry that an older connection left behind?
    pub(crate) fn reused(&self) -> Option<&'flow IpvsConn> {
        let found = self.found?;
        let sent = self.sent_with?;
        (found.conn == sent.conn && self.scheduling.is_none() && self.expired.is_none()).then_some(found)
    }

    fn evidence_of_verdict(&self) -> Option<Evidence> {
        let step = self.asked?;
        let verdict = step.verdict?;
        let name = match verdict & NF_VERDICT_MASK {
            0 => "NF_DROP",
            1 => "NF_ACCEPT",
            2 => "NF_STOLEN",
            _ => "another verdict",
        };
        Some(Evidence::seen(
            "verdict of IPVS on the SYN",
            format!("{name} ({verdict})"),
            step.event.hook,
        ))
    }
}

/// Explains a SYN that IPVS itself discarded; `None` if IPVS did not, or it cannot be told why.
pub(crate) fn dropped(flow: &Flow, attempt: usize, facts: &Facts) -> Option<Finding> {
    let decision = Decision::of(flow, attempt);
    if !decision.said_drop() {
        return None;
    }
    if let Some(found) = decision.found {
        return match decision.expired {
            Some(expired) if expired.conn == found.conn => expired_and_dropped(flow, &decision, found, facts),
            None if decision.scheduling.is_none() => unavailable(flow, &decision, found),
            _ => None,
        };
    }
    decision
        .left
        .and_then(|service| no_destination(flow, &decision, service, facts))
}

/// Lookup found an entry, IPVS expired it at once and dropped the SYN: three branches do that, told apart by what
/// the entry and the settings were.
fn expired_and_dropped(
    flow: &Flow,
    decision: &Decision<'_>,
    found: &IpvsConn,
    facts: &Facts,
) -> Option<Finding> {
    let netns = facts.netns.get(&flow.netns);
    let draining = found.have & ipvs_conn::WEIGHT != 0 && found.weight == 0;
    let removed = found.have & ipvs_conn::AVAILABLE != 0 && found.available == 0;
    let expire_nodest = if found.have & ipvs_conn::EXPIRE_NODEST == 0 {
        netns.and_then(|netns| netns.sysctls.number("net.ipv4.vs.expire_nodest_conn"))
    } else {
        Some(i64::from(found.expire_nodest_conn))
    };
    let ended =
        found.have & ipvs_conn::STATE != 0 && matches!(found.state, ipvs_conn::TIME_WAIT | ipvs_conn::CLOSE);
    let mut evidence = evidence::old_entry(found);
    evidence.push(Evidence::seen(
        "IPVS expired that entry",
        "at once",
        Hook::IpvsExpireNow,
    ));
    evidence.extend(decision.evidence_of_verdict());
    let conntrack_says = evidence::old_conntrack(found);
    if let Some(conntrack) = &conntrack_says {
        evidence.push(Evidence::seen(
            "conntrack entry of the SYN",
            conntrack.clone(),
            Hook::IpvsLookup,
        ));
    }
    evidence.extend(settings(found, netns));
    evidence.extend(evidence::earlier(flow));

    let reuse_mode = if found.have & ipvs_conn::REUSE_MODE == 0 {
        netns.and_then(|netns| netns.sysctls.number("net.ipv4.vs.conn_reuse_mode"))
    } else {
        Some(i64::from(found.conn_reuse_mode))
    };

    // ip_vs_in asks for a draining server first, then for an ended connection (unless conn_reuse_mode is 0), and only
    // then for a removed server. Where it is not known which of the last two it was, there is no cause.
    if removed && !draining && ended && reuse_mode.is_none() {
        return None;
    }
    let not_reuse = !ended || reuse_mode == Some(0);
    if expire_nodest == Some(1) && (draining || (removed && not_reuse)) {
        // A server that drained is removed with weight 0.
        let why = if removed {
            "was removed from the service"
        } else {
            "is draining (weight 0)"
        };
        return Some(Finding {
            cause: Cause::IpvsNodestExpired,
            explanation: format!(
                "The client's port still had an IPVS entry for {}, which {why}. IPVS expired that entry and discarded \
                 this SYN with it; the next SYN is scheduled anew.",
                backend_name(found),
            ),
            evidence,
        });
    }
    // Neither branch for servers was possible, or it is not known that it was: only an ended connection is left,
    // and that must have been seen.
    if !ended || ((draining || removed) && expire_nodest.is_none()) {
        return None;
    }
    let state = evidence::state(found).unwrap_or_default();
    let conntrack = match found.have & ipvs_conn::CT_STATUS {
        0 => "conntrack was in use for it",
        _ if found.ct_status & conntrack::CONFIRMED != 0 => "conntrack still held the old connection",
        _ => "this kernel does so whenever the SYN has a conntrack entry, even a new one",
    };
    Some(Finding {
        cause: Cause::IpvsReuseDropped,
        explanation: format!(
            "The client reused source port {} while IPVS still held the last connection in {state}. IPVS expired that \
             entry and discarded this SYN, because {conntrack}; the client has to wait for its retransmission.",
            flow.client().port(),
        ),
        evidence,
    })
}

/// Lookup found an entry and the SYN was dropped without anything else: the entry's real server is gone.
fn unavailable(flow: &Flow, decision: &Decision<'_>, found: &IpvsConn) -> Option<Finding> {
    if found.have & ipvs_conn::AVAILABLE == 0 || found.available != 0 {
        return None;
    }
    let mut evidence = evidence::old_entry(found);
    evidence.extend(decision.evidence_of_verdict());
    evidence.push(Evidence::seen(
        "that entry was not expired",
        "it drops the next SYN too",
        Hook::IpvsLookup,
    ));
    evidence.extend(settings(found, None));
    evidence.extend(evidence::earlier(flow));
    Some(Finding {
        cause: Cause::IpvsDestUnavailable,
        explanation: format!(
            "The client's port still has an IPVS entry for {}, which was removed from the service. IPVS discards every \
             SYN from this port in silence until the entry times out.",
            backend_name(found),
        ),
        evidence,
    })
}

/// The scheduler returned nothing.
fn no_destination(
    flow: &Flow,
    decision: &Decision<'_>,
    service: &IpvsService,
    facts: &Facts,
) -> Option<Finding> {
    let table = facts
        .netns
        .get(&flow.netns)
        .and_then(|netns| netns.service(flow.node()));
    let (value, source) = match (service.num_dests, table) {
        (0, _) => ("no real server".to_owned(), None),
        (_, Some(table)) if table.real_servers.is_empty() => ("no real server".to_owned(), Some(PROC_IP_VS)),
        (_, Some(table)) if table.real_servers.iter().all(|server| server.weight == 0) => (
            format!("{} real servers, all of weight 0", table.real_servers.len()),
            Some(PROC_IP_VS),
        ),
        // There are servers with weight: over their limits, perhaps, but that was not seen.
        _ => return None,
    };
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
    Some(Finding {
        cause: Cause::IpvsNoDestination,
        explanation: format!(
            "The IPVS service {} has {value}, so there is nowhere to send the SYN to.",
            flow.node()
        ),
        evidence,
    })
}

/// A refusal that IPVS itself caused.
pub(crate) fn refused(flow: &Flow, attempt: usize, facts: &Facts) -> Option<Finding> {
    let decision = Decision::of(flow, attempt);
    if let Some(service) = decision.left {
        return no_destination(flow, &decision, service, facts);
    }
    let declined = decision.looked_up
        && decision.found.is_none()
        && decision.scheduling == Some(1)
        && decision.service.is_none()
        && decision.verdict() == Some(1);
    let reset = flow.steps_of(attempt).find(|step| {
        step.event.hook == Hook::TcpSendReset
            && step.event.netns == flow.netns
            && step.event.tuple == flow.original
    })?;
    declined.then(|| Finding {
        cause: Cause::IpvsNoService,
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

/// The SYN was sent to the real server of an old entry although that server is draining or gone.
pub(crate) fn stale_backend(flow: &Flow, attempt: usize, facts: &Facts) -> Option<Finding> {
    // The flow's own first SYN made the entry that its retransmissions meet: only the first can meet an old one.
    let first = (0..=attempt).find(|&index| Decision::of(flow, index).asked.is_some())?;
    let old = Decision::of(flow, first).reused()?;
    let decision = Decision::of(flow, attempt);
    let used = decision.reused().filter(|conn| conn.conn == old.conn)?;
    let netns = facts.netns.get(&flow.netns);
    let mut evidence = evidence::old_entry(old);
    let draining = used.have & ipvs_conn::WEIGHT != 0 && used.weight == 0;
    let removed = used.have & ipvs_conn::AVAILABLE != 0 && used.available == 0;
    if !draining && !removed {
        return None;
    }
    evidence.push(Evidence::seen(
        "IPVS sent the SYN with that old entry",
        backend_name(used),
        Hook::IpvsNatXmit,
    ));
    evidence.extend(settings(used, netns));
    evidence.extend(evidence::earlier(flow));
    Some(Finding {
        cause: Cause::IpvsReuseStaleBackend,
        explanation: format!(
            "The client reused source port {}, and IPVS sent the SYN to the real server of the old connection, {}, \
             although it is {}.",
            flow.client().port(),
            backend_name(used),
            if removed {
                "no longer in the service"
            } else {
                "draining (weight 0)"
            },
        ),
        evidence,
    })
}

/// The settings that decide, as the kernel had them at that moment or, where that cannot be read, as the file says.
fn settings(conn: &IpvsConn, netns: Option<&NetnsFacts>) -> Vec<Evidence> {
    let setting = |name: &str, bit: u32, value: i32, file: Option<i64>| match (conn.have & bit != 0, file) {
        (true, _) => Some(Evidence::seen(
            format!("net.ipv4.vs.{name}"),
            value.to_string(),
            Hook::IpvsLookup,
        )),
        (false, Some(value)) => Some(Evidence::read(
            format!("net.ipv4.vs.{name}"),
            value.to_string(),
            "/proc/sys/net/ipv4/vs",
        )),
        (false, None) => None,
    };
    let mode = netns.and_then(|netns| netns.sysctls.number("net.ipv4.vs.conn_reuse_mode"));
    let nodest = netns.and_then(|netns| netns.sysctls.number("net.ipv4.vs.expire_nodest_conn"));
    [
        setting(
            "conn_reuse_mode",
            ipvs_conn::REUSE_MODE,
            conn.conn_reuse_mode,
            mode,
        ),
        setting(
            "expire_nodest_conn",
            ipvs_conn::EXPIRE_NODEST,
            conn.expire_nodest_conn,
            nodest,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn backend_name(conn: &IpvsConn) -> String {
    real_server(conn).map_or_else(|| "its old real server".to_owned(), |backend| backend.to_string())
}
