//! Evidence: what was read or seen, and where.

use std::net::SocketAddr;

use tracer_common::{
    hook::{self, Hook},
    record::{Egress, Icmp, IpvsConn, PacketState, Vip, conntrack, ipvs_conn, packet_state},
};

use super::case::Case;
use crate::{
    decode::event::{Payload, text},
    facts::Facts,
    flow::model::{Flow, Step, real_server},
};

const UNKNOWN_NUMBER: u32 = u32::MAX;

/// One fact that supports a cause.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Evidence {
    /// What it is a fact about.
    pub what: String,
    /// The fact.
    pub value: String,
    /// The kernel function or tracepoint, or the file, that showed it.
    pub hook: String,
}

impl Evidence {
    /// A fact that a hook showed.
    #[must_use]
    pub fn seen(what: impl Into<String>, value: impl Into<String>, hook: Hook) -> Self {
        Self {
            what: what.into(),
            value: value.into(),
            hook: hook.name().to_owned(),
        }
    }

    /// A fact that a file of the kernel showed.
    #[must_use]
    pub fn read(what: impl Into<String>, value: impl Into<String>, source: &str) -> Self {
        Self {
            what: what.into(),
            value: value.into(),
            hook: source.to_owned(),
        }
    }

    /// The same about a flow of IPv6: where the hook has a twin for it, that is the function that showed it.
    #[must_use]
    pub(super) fn of_ipv6(mut self) -> Self {
        let twin = hook::ALL
            .iter()
            .find(|info| info.hook.ipv4_twin().is_some_and(|twin| twin.name() == self.hook));
        if let Some(twin) = twin {
            twin.name.clone_into(&mut self.hook);
        }
        self
    }
}

/// Name of an IPVS state as users know it from `ipvsadm -c`; `None` if it was not read.
#[must_use]
pub fn state(conn: &IpvsConn) -> Option<String> {
    (conn.have & ipvs_conn::STATE != 0)
        .then(|| ipvs_conn::state_name(conn.state).map_or_else(|| conn.state.to_string(), str::to_owned))
}

/// The real server of an entry and its weight, in one line.
#[must_use]
pub fn server(conn: &IpvsConn) -> String {
    let server = real_server(conn).map_or_else(
        || "a real server (its address cannot be read on this kernel)".to_owned(),
        |server| format!("real server {server}"),
    );
    if conn.have & ipvs_conn::WEIGHT == 0 {
        server
    } else {
        format!("{server}, weight {}", conn.weight)
    }
}

/// What could be read of an old entry, in one line.
#[must_use]
pub fn entry(conn: &IpvsConn) -> String {
    let mut parts = Vec::new();
    if let Some(state) = state(conn) {
        parts.push(format!("state {state}"));
    }
    if let Some(backend) = real_server(conn) {
        parts.push(format!("real server {backend}"));
    }
    if conn.have & ipvs_conn::WEIGHT != 0 {
        parts.push(format!("weight {}", conn.weight));
    }
    if conn.have & ipvs_conn::NO_DEST != 0 {
        parts.push("bound to no real server".to_owned());
    }
    if conn.have & ipvs_conn::AVAILABLE != 0 && conn.available == 0 {
        parts.push("removed from the service".to_owned());
    }
    if parts.is_empty() {
        "found (its members cannot be read on this kernel)".to_owned()
    } else {
        parts.join(", ")
    }
}

/// What could be read of the entry that an older connection left behind, fact by fact.
#[must_use]
pub fn old_entry(conn: &IpvsConn) -> Vec<Evidence> {
    let fact = |what: &str, value: String| {
        Evidence::seen(format!("old IPVS entry: {what}"), value, Hook::IpvsLookup)
    };
    let mut out = Vec::new();
    match state(conn) {
        Some(state) => out.push(fact("state", state)),
        None => out.push(fact(
            "state",
            "found, but its state cannot be read on this kernel".to_owned(),
        )),
    }
    if let Some(backend) = real_server(conn) {
        out.push(fact("real server", backend.to_string()));
    }
    if conn.have & ipvs_conn::WEIGHT != 0 {
        out.push(fact("weight of the real server", conn.weight.to_string()));
    }
    if conn.have & ipvs_conn::AVAILABLE != 0 {
        let value = if conn.available == 0 {
            "removed from it"
        } else {
            "in it"
        };
        out.push(fact("real server in the service", value.to_owned()));
    }
    if conn.have & ipvs_conn::NO_DEST != 0 {
        out.push(fact("real server", "bound to none".to_owned()));
    }
    if conn.have & ipvs_conn::CONTROLLED != 0 {
        out.push(fact(
            "session affinity",
            "controlled by a persistence template".to_owned(),
        ));
    }
    out
}

/// The conntrack entry that the SYN carried when IPVS looked its connection up, if it was an old one.
#[must_use]
pub fn old_conntrack(conn: &IpvsConn) -> Option<String> {
    if conn.have & ipvs_conn::CT_STATUS == 0 {
        return None;
    }
    let confirmed = if conn.ct_status & conntrack::CONFIRMED == 0 {
        "new, not confirmed"
    } else {
        "old, confirmed"
    };
    let state = (conn.have & ipvs_conn::CT_TCP_STATE != 0)
        .then(|| conntrack::tcp_state_name(conn.ct_tcp_state))
        .flatten()
        .map_or_else(String::new, |state| format!(", TCP state {state}"));
    Some(format!("{confirmed}{state}"))
}

/// What conntrack had made of a packet, in the words of the rules (`ct state`, `ctstate`).
#[must_use]
pub fn packet_state(state: &PacketState) -> &'static str {
    if state.ct == 0 {
        return match state.info {
            packet_state::UNTRACKED => "UNTRACKED",
            _ => "without an entry (INVALID, or not looked at yet)",
        };
    }
    // `enum ip_conntrack_info` (uapi/linux/netfilter/nf_conntrack_common.h), 3.10 to 7.3.
    match state.info {
        0 | 3 => "ESTABLISHED",
        1 | 4 => "RELATED",
        _ => "NEW",
    }
}

/// The flow before this one from the same client port.
#[must_use]
pub fn earlier(flow: &Flow) -> Option<Evidence> {
    let earlier = flow.earlier.as_ref()?;
    #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = flow.start_ns().saturating_sub(earlier.start_ns) as f64 / 1e9;
    let backend = earlier
        .backend
        .map_or_else(String::new, |backend| format!(", backend {backend}"));
    Some(Evidence::seen(
        "earlier connection from the same client port",
        format!(
            "flow {}, begun {seconds:.3} s before, {}{backend}",
            earlier.id, earlier.fate
        ),
        Hook::NetifReceive,
    ))
}

/// Where a step happened, for people: `eth0` or `cali1 (netns 4026532…)`.
#[must_use]
pub fn place(step: &Step) -> String {
    let dev = step.event.dev.get();
    match (dev, step.event.netns) {
        (Some(dev), 0) => dev,
        (Some(dev), netns) => format!("{dev} in netns {netns}"),
        (None, 0) => "an unknown netns".to_owned(),
        (None, netns) => format!("netns {netns}"),
    }
}

/// Function, place and reason of a discarded packet; nothing for any other step.
#[must_use]
pub fn discarded(step: &Step, facts: &Facts) -> Vec<Evidence> {
    let Payload::Drop(drop) = &step.event.payload else {
        return Vec::new();
    };
    let mut out = vec![
        Evidence::seen("discarded in", location(step, facts), Hook::KfreeSkb),
        Evidence::seen("discarded at", place(step), Hook::KfreeSkb),
    ];
    if drop.reason != UNKNOWN_NUMBER {
        let name = facts
            .drop_reasons
            .get(&drop.reason)
            .cloned()
            .unwrap_or_else(|| drop.reason.to_string());
        out.push(Evidence::seen("drop reason", name, Hook::KfreeSkb));
    }
    out
}

/// The function of a place in it: `ip_tunnel_xmit` of `ip_tunnel_xmit+0x3b [ip_tunnel]`, and of what a compiler has cut
/// from it (`ip_tunnel_xmit.cold`).
#[must_use]
pub fn function(symbol: &str) -> &str {
    symbol.split(['+', '.', ' ']).next().unwrap_or(symbol)
}

/// Where the packet that was discarded was to leave by.
pub(super) fn egress<'a>(case: &Case<'a>) -> Option<&'a Egress> {
    let discarded = &case.discarded?.event;
    case.steps().rev().find_map(|step| match &step.event.payload {
        Payload::Egress(egress)
            if step.event.skb == discarded.skb && step.event.time_ns <= discarded.time_ns =>
        {
            Some(egress)
        }
        _ => None,
    })
}

/// Where a packet was to leave by, in one line.
#[must_use]
pub fn way_out(egress: &Egress) -> String {
    let qdisc = Some(text(&egress.qdisc)).filter(|name| !name.is_empty());
    let gateway = (!egress.gateway.is_unset()).then(|| egress.gateway.ip());
    match (gateway, qdisc) {
        (Some(gateway), Some(qdisc)) => format!("next hop {gateway}, queueing discipline {qdisc}"),
        (Some(gateway), None) => format!("next hop {gateway}"),
        (None, Some(qdisc)) => format!("queueing discipline {qdisc}"),
        (None, None) => "the way out of the packet".to_owned(),
    }
}

/// The next hop of the packet that was discarded.
pub(super) fn gateway(case: &Case<'_>) -> Option<String> {
    let gateway = egress(case)?.gateway;
    (!gateway.is_unset()).then(|| gateway.ip().to_string())
}

/// The kernel function that discarded the packet.
#[must_use]
pub fn location(step: &Step, facts: &Facts) -> String {
    match &step.event.payload {
        Payload::Drop(drop) => facts
            .symbols
            .get(&drop.location)
            .cloned()
            .unwrap_or_else(|| format!("{:#x}", drop.location)),
        _ => step.event.hook.name().to_owned(),
    }
}

/// Address and port of a virtual service.
#[must_use]
pub fn service(vip: &Vip) -> SocketAddr {
    // A port has 16 bits wherever it is kept.
    SocketAddr::new(vip.addr.ip(), u16::try_from(vip.port).unwrap_or(u16::MAX))
}

/// Who refused a SYN with RST, if that was seen.
#[must_use]
pub fn reset(flow: &Flow, attempt: usize) -> Option<Evidence> {
    let step = flow
        .steps_of(attempt)
        .find(|step| step.event.hook == Hook::TcpSendReset)?;
    Some(Evidence::seen("RST sent by", place(step), step.event.hook))
}

/// The ICMP error that went to the client.
#[must_use]
pub fn icmp(flow: &Flow) -> Option<Evidence> {
    flow.steps.iter().find_map(|step| match &step.event.payload {
        Payload::Icmp(icmp) => Some(Evidence::seen(
            "ICMP sent to the client",
            icmp_name(icmp, step.event.tuple.is_v6()),
            step.event.hook,
        )),
        _ => None,
    })
}

/// Names of RFC 792 and RFC 1812, and of RFC 4443 for ICMPv6, for the errors that matter here.
#[must_use]
pub fn icmp_name(icmp: &Icmp, is_v6: bool) -> String {
    let &Icmp { icmp_type, code } = icmp;
    let known = if is_v6 {
        icmpv6_error(icmp_type, code)
    } else {
        icmpv4_error(icmp_type, code)
    };
    let protocol = if is_v6 { "ICMPv6 " } else { "" };
    match known {
        Some(name) => format!("{name} ({protocol}type {icmp_type}, code {code})"),
        None => format!("{protocol}type {icmp_type}, code {code}"),
    }
}

fn icmpv4_error(icmp_type: u32, code: u32) -> Option<&'static str> {
    Some(match (icmp_type, code) {
        (3, 0) => "network unreachable",
        (3, 1) => "host unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "fragmentation needed",
        (3, 9 | 10 | 13) => "administratively prohibited",
        (11, 0) => "TTL exceeded",
        _ => return None,
    })
}

fn icmpv6_error(icmp_type: u32, code: u32) -> Option<&'static str> {
    Some(match (icmp_type, code) {
        (1, 0) => "no route to destination",
        (1, 1) => "administratively prohibited",
        (1, 3) => "address unreachable",
        (1, 4) => "port unreachable",
        (1, 5) => "prohibited by policy",
        (1, 6) => "route rejects the destination",
        (2, 0) => "packet too big",
        (3, 0) => "hop limit exceeded",
        (3, 1) => "fragments not complete in time",
        _ => return None,
    })
}
