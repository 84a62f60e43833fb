//! IPVS drops a SYN before it has a connection entry: to protect itself, or because it cannot create one.

use tracer_common::{
    hook::Hook,
    record::{IpvsLimits, ipvs_limits},
};

use super::decision::{Decision, REQUEST};
use crate::diagnose::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{Evidence, Key},
    row::{Absence, Group, Light, Row},
};

pub(super) const DEFENSE_DROP: Row = Row {
    cause: Cause::IpvsDefenseDrop,
    group: Group::IpvsServers,
    summary: "The overload protection of IPVS (drop_packet) dropped the SYN.",
    proof: "tcp_conn_schedule returned 0 without calling ip_vs_schedule or ip_vs_leave, and IPVS returned NF_DROP: for a \
            complete SYN to a service, only ip_vs_todrop makes it do so. Where drop_rate is readable, it is above 0.",
    advice: Some(
        "Set net.ipv4.vs.drop_packet=0, or give the node more memory: with drop_packet 1 and 2 IPVS starts to drop when \
         free memory falls below net.ipv4.vs.amemthresh pages; with 3 it always drops one in am_droprate new connections.",
    ),
    scope: "IPVS, on every kernel. drop_rate is read on kernels with BTF for modules (5.11 and later); on older ones, the \
            value of drop_packet is given. The drop_entry defence drops no SYN: it expires half-open entries, and a \
            retransmitted SYN gets a new one.",
    hooks: &[
        REQUEST,
        &[Hook::IpvsTcpSchedule],
        &[Hook::IpvsSchedule],
        &[Hook::IpvsLeave],
    ],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: defense,
};

pub(super) const CONN_ALLOC_FAILED: Row = Row {
    cause: Cause::IpvsConnAllocFailed,
    group: Group::IpvsServers,
    summary: "IPVS could not create a connection entry: out of memory, or at its limit conn_max.",
    proof: "ip_vs_schedule returned no entry, ip_vs_leave was not called, tcp_conn_schedule returned 0 and IPVS returned \
            NF_DROP: a real server was chosen, and ip_vs_conn_new failed.",
    advice: Some(
        "If conn_max is reached, raise net.ipv4.vs.conn_max (0 allows no connection) or find out what fills the table \
         (`ipvsadm -Lnc`). Otherwise the node is out of memory: look in the kernel log for ip_vs_conn_new and for page \
         allocation failures.",
    ),
    scope: "IPVS. Out of memory on every kernel; conn_max exists since 7.2.",
    hooks: &[
        REQUEST,
        &[Hook::IpvsTcpSchedule],
        &[Hook::IpvsSchedule],
        &[Hook::IpvsLeave],
    ],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: no_entry,
};

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
        let value = format!("one in {rate} new connections is dropped");
        evidence.push(Evidence::seen(Key::IpvsDropRate, value, Hook::IpvsTcpSchedule));
    }
    evidence.extend(
        [
            (Key::IpvsDropPacket, DROP_PACKET),
            (Key::IpvsAmDroprate, "net.ipv4.vs.am_droprate"),
            (Key::IpvsAmemthresh, "net.ipv4.vs.amemthresh"),
        ]
        .into_iter()
        .filter_map(|(key, name)| Some((key, setting(name)?)))
        .map(|(key, value)| Evidence::read(key, value.to_string(), "/proc/sys/net/ipv4/vs")),
    );
    let how_many = match rate {
        Some(1) => "every new connection".to_owned(),
        Some(rate) => format!("one in {rate} new connections"),
        None => "some new connections".to_owned(),
    };
    Some(Proof::new(
        format!(
            "IPVS dropped this SYN to protect itself against overload: at that time it dropped {how_many}."
        ),
        evidence,
    ))
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
    let entries = read(decision.limits, ipvs_limits::CONN_COUNT).map(|limits| limits.conn_count);
    let limit = read(decision.limits, ipvs_limits::CONN_MAX).map(|limits| limits.conn_max);
    if let Some(entries) = entries {
        evidence.push(Evidence::seen(
            Key::IpvsConnCount,
            entries.to_string(),
            Hook::IpvsTcpSchedule,
        ));
    }
    if let Some(limit) = limit {
        evidence.push(Evidence::seen(
            Key::IpvsConnMax,
            limit.to_string(),
            Hook::IpvsTcpSchedule,
        ));
    }
    let why = match (entries, limit) {
        (Some(entries), Some(limit)) if entries >= limit => {
            format!("its table is full (entries: {entries}, net.ipv4.vs.conn_max: {limit})")
        }
        _ => "the kernel is out of memory".to_owned(),
    };
    Some(Proof::new(
        format!(
            "IPVS chose a real server but could not create a connection entry: {why}. It dropped the SYN."
        ),
        evidence,
    ))
}

fn proof_by_calls(decision: &Decision<'_>, calls: &str) -> Vec<Evidence> {
    let mut evidence = vec![Evidence::seen(
        Key::IpvsScheduling,
        format!("tcp_conn_schedule returned 0, {calls}"),
        Hook::IpvsTcpSchedule,
    )];
    evidence.extend(decision.evidence_of_verdict());
    evidence
}

/// The limits, if this field of them was read.
fn read(limits: Option<&IpvsLimits>, field: u32) -> Option<&IpvsLimits> {
    limits.filter(|limits| limits.have & field != 0)
}
