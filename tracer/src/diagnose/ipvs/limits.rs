//! IPVS drops a SYN before it has a connection entry: to protect itself, or for lack of one.

use tracer_common::{
    hook::Hook,
    record::{IpvsLimits, ipvs_limits},
};

use super::decision::Decision;
use crate::diagnose::{
    case::{Case, Proof, Situation},
    catalogue::{ASKED, Row},
    cause::Cause,
    evidence::Evidence,
};

pub(super) const DEFENSE_DROP: Row = Row {
    cause: Cause::IpvsDefenseDrop,
    says: "IPVS protects itself against overload: it drops one of so many new connections (drop_packet).",
    proof: "tcp_conn_schedule returned 0 without calling ip_vs_schedule or ip_vs_leave, and IPVS returned NF_DROP: of a \
            whole SYN to a service, only ip_vs_todrop makes it do so. Where it can be read, drop_rate is above 0.",
    advice: Some(
        "Set net.ipv4.vs.drop_packet=0, or give the node memory: with drop_packet 1 and 2 IPVS begins to drop when free \
         memory falls below net.ipv4.vs.amemthresh pages, with 3 it drops one of am_droprate all the time.",
    ),
    occurs: "IPVS, on every kernel. drop_rate is read on kernels with BTF for modules (5.11 and later); before, the \
             setting of drop_packet is given. The drop_entry defence drops no SYN: it expires half-open entries, and \
             a SYN that is sent again gets a new one.",
    hooks: &[
        ASKED,
        &[Hook::IpvsTcpSchedule],
        &[Hook::IpvsSchedule],
        &[Hook::IpvsLeave],
    ],
    find: defense,
};

pub(super) const CONN_ALLOC_FAILED: Row = Row {
    cause: Cause::IpvsConnAllocFailed,
    says: "IPVS could not make a connection entry: no memory, or its limit conn_max is reached.",
    proof: "ip_vs_schedule returned no entry, ip_vs_leave was not called, tcp_conn_schedule returned 0 and IPVS NF_DROP: \
            a real server was chosen, and ip_vs_conn_new failed.",
    advice: Some(
        "If conn_max is reached, raise net.ipv4.vs.conn_max (0 lets no connection in) or find out who fills the table \
         (`ipvsadm -Lnc`); else the node is out of memory: look at the kernel's log for ip_vs_conn_new and for page \
         allocation failures.",
    ),
    occurs: "IPVS. A lack of memory on every kernel; conn_max exists since 7.2, and only there the lab can make it happen.",
    hooks: &[
        ASKED,
        &[Hook::IpvsTcpSchedule],
        &[Hook::IpvsSchedule],
        &[Hook::IpvsLeave],
    ],
    find: no_entry,
};

/// What `net.ipv4.vs.drop_packet` is set to, if that is known.
const DROP_PACKET: &str = "net.ipv4.vs.drop_packet";

fn defense(case: &Case<'_>) -> Option<Proof> {
    let decision = case.decision();
    if case.situation != Situation::Dropped || !decision.scheduling_dropped() || decision.service.is_some() {
        return None;
    }
    let setting = |name: &str| case.netns().and_then(|netns| netns.sysctls.number(name));
    let rate = read(decision.limits, ipvs_limits::DROP_RATE).map(|limits| limits.drop_rate);
    if rate == Some(0) || (rate.is_none() && setting(DROP_PACKET) == Some(0)) {
        return None;
    }
    let mut evidence = proof_by_calls(&decision, "ip_vs_schedule was not called");
    if let Some(rate) = rate {
        let value = format!("one of {rate} new connections is dropped");
        evidence.push(Evidence::seen("drop_rate of IPVS", value, Hook::IpvsTcpSchedule));
    }
    evidence.extend(
        [DROP_PACKET, "net.ipv4.vs.am_droprate", "net.ipv4.vs.amemthresh"]
            .into_iter()
            .filter_map(|name| Some((name, setting(name)?)))
            .map(|(name, value)| Evidence::read(name, value.to_string(), "/proc/sys/net/ipv4/vs")),
    );
    let how_many = match rate {
        Some(1) => "every new connection".to_owned(),
        Some(rate) => format!("one of {rate} new connections"),
        None => "some new connections".to_owned(),
    };
    Some(Proof {
        explanation: format!(
            "The overload protection of IPVS discarded this SYN: at that time it dropped {how_many}."
        ),
        evidence,
    })
}

fn no_entry(case: &Case<'_>) -> Option<Proof> {
    let decision = case.decision();
    if case.situation != Situation::Dropped || !decision.scheduling_dropped() {
        return None;
    }
    decision.service?;
    decision.scheduled.filter(|conn| conn.conn == 0)?;
    let mut evidence = proof_by_calls(
        &decision,
        "ip_vs_schedule returned no entry, ip_vs_leave was not called",
    );
    let count = read(decision.limits, ipvs_limits::CONN_COUNT).map(|limits| limits.conn_count);
    let most = read(decision.limits, ipvs_limits::CONN_MAX).map(|limits| limits.conn_max);
    if let Some(count) = count {
        evidence.push(Evidence::seen(
            "connection entries of IPVS",
            count.to_string(),
            Hook::IpvsTcpSchedule,
        ));
    }
    if let Some(most) = most {
        evidence.push(Evidence::seen(
            "net.ipv4.vs.conn_max",
            most.to_string(),
            Hook::IpvsTcpSchedule,
        ));
    }
    let why = match (count, most) {
        (Some(count), Some(most)) if count >= most => {
            format!("it has {count} of them, and net.ipv4.vs.conn_max allows {most}")
        }
        _ => "the kernel had no memory for it".to_owned(),
    };
    Some(Proof {
        explanation: format!(
            "IPVS chose a real server but could not make a connection entry, because {why}; it discarded the SYN."
        ),
        evidence,
    })
}

fn proof_by_calls(decision: &Decision<'_>, what: &str) -> Vec<Evidence> {
    let mut evidence = vec![Evidence::seen(
        "scheduling",
        format!("tcp_conn_schedule returned 0, {what}"),
        Hook::IpvsTcpSchedule,
    )];
    evidence.extend(decision.evidence_of_verdict());
    evidence
}

/// The limits, if that member of them was read.
fn read(limits: Option<&IpvsLimits>, member: u32) -> Option<&IpvsLimits> {
    limits.filter(|limits| limits.have & member != 0)
}
