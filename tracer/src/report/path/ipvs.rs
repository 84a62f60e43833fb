//! The real server that IPVS chose, or why it chose none.

use tracer_common::{
    hook::Hook,
    record::{IpvsConn, IpvsDests, IpvsLimits, IpvsService, ipvs_conn, ipvs_limits},
};

use crate::{
    decode::event::{Payload, text},
    diagnose::{evidence, words},
    facts::Facts,
    flow::model::{Flow, Step},
};

/// The schedulers of the kernel (`net/netfilter/ipvs/ip_vs_*.c`, 3.10 to 7.3).
const SCHEDULERS: [&str; 14] = [
    "dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "twos", "wlc", "wrr",
];

/// The service whose scheduler is called, or found no real server.
pub(super) fn service(flow: &Flow, service: &IpvsService, hook: Hook, facts: &Facts) -> String {
    let scheduler = scheduler(flow, service, facts);
    let servers = match service.num_dests {
        u32::MAX => String::new(),
        1 => ", 1 real server".to_owned(),
        several => format!(", {several} real servers"),
    };
    match hook {
        Hook::IpvsLeave => format!("scheduler {scheduler} found no real server{servers}"),
        _ => format!("calling scheduler {scheduler}{servers}"),
    }
}

/// The real server that the scheduler chose.
pub(super) fn chosen(flow: &Flow, step: &Step, conn: &IpvsConn, facts: &Facts) -> String {
    let service = flow
        .steps_of(step.attempt)
        .find_map(|other| match &other.event.payload {
            Payload::IpvsService(service) if other.event.call == step.event.call => Some(service),
            _ => None,
        });
    let scheduler = service.map_or_else(|| "unknown".to_owned(), |service| scheduler(flow, service, facts));
    if conn.conn == 0 {
        return format!("scheduler {scheduler}: IPVS creates no entry");
    }
    let by_affinity = if conn.have & ipvs_conn::CONTROLLED == 0 {
        ""
    } else {
        ", bound by session affinity"
    };
    format!(
        "scheduler {scheduler} chose {}{by_affinity}",
        evidence::server(conn)
    )
}

/// The real servers, none of them usable.
pub(super) fn servers(dests: &IpvsDests) -> String {
    let servers = usize::try_from(dests.counted).unwrap_or(usize::MAX);
    format!(
        "{}: {} with nonzero weight, {} of them overloaded",
        words::count(servers, "real server"),
        dests.with_weight,
        dests.overloaded
    )
}

/// The limits on new connections.
pub(super) fn limits(limits: &IpvsLimits) -> String {
    let number =
        |member, name: &str, value: i32| (limits.have & member != 0).then(|| format!("{name} {value}"));
    let parts: Vec<_> = [
        number(ipvs_limits::DROP_RATE, "drop_rate", limits.drop_rate),
        number(ipvs_limits::CONN_COUNT, "entries", limits.conn_count),
        number(ipvs_limits::CONN_MAX, "conn_max", limits.conn_max),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "IPVS creates no entry".to_owned()
    } else {
        format!("IPVS creates no entry ({})", parts.join(", "))
    }
}

/// Name of a service's scheduler, from the kernel's struct or from `/proc`. On a kernel without BTF for its structs, what
/// was read counts only if it is the name of a scheduler.
fn scheduler(flow: &Flow, service: &IpvsService, facts: &Facts) -> String {
    let name = text(&service.scheduler);
    if SCHEDULERS.contains(&name.as_str()) || (service.num_dests != u32::MAX && !name.is_empty()) {
        return name;
    }
    let printed = facts
        .netns
        .get(&flow.netns)
        .and_then(|netns| netns.service(flow.node()));
    printed.map_or_else(|| "unknown".to_owned(), |service| service.scheduler.clone())
}
