//! Evidence: what was seen or read, and where.

mod key;

use std::net::SocketAddr;

use serde::ser::SerializeStruct as _;
use tracer_common::{
    hook::{self, Hook},
    record::{Conntrack, Icmp, IpvsConn, PacketState, Vip, conntrack, ipvs_conn, packet_state},
};

pub use self::key::Key;
use crate::{
    decode::event::Payload,
    facts::Facts,
    flow::model::{Flow, Step, real_server},
};

const UNKNOWN_NUMBER: u32 = u32::MAX;

/// One fact that supports a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The subject of the fact.
    pub key: Key,
    /// The fact.
    pub value: String,
    /// The kernel function, the tracepoint or the file that showed it.
    pub source: String,
}

impl Evidence {
    /// A fact that a hook showed.
    #[must_use]
    pub fn seen(key: Key, value: impl Into<String>, hook: Hook) -> Self {
        Self {
            key,
            value: value.into(),
            source: hook.name().to_owned(),
        }
    }

    /// A fact that was read from a file or another interface of the kernel.
    #[must_use]
    pub fn read(key: Key, value: impl Into<String>, source: &str) -> Self {
        Self {
            key,
            value: value.into(),
            source: source.to_owned(),
        }
    }

    /// The subject of the fact, for people.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.key.label()
    }

    /// The same fact about an IPv6 flow: where the hook has an IPv6 twin, the twin showed it.
    #[must_use]
    pub(super) fn of_ipv6(mut self) -> Self {
        let twin = hook::ALL.iter().find(|info| {
            info.hook
                .ipv4_twin()
                .is_some_and(|twin| twin.name() == self.source)
        });
        if let Some(twin) = twin {
            twin.name.clone_into(&mut self.source);
        }
        self
    }
}

/// `key` is for programs, `what` its label for people; `hook` has been the source's name since the first schema.
impl serde::Serialize for Evidence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_struct("Evidence", 4)?;
        members.serialize_field("key", &self.key)?;
        members.serialize_field("what", self.label())?;
        members.serialize_field("value", &self.value)?;
        members.serialize_field("hook", &self.source)?;
        members.end()
    }
}

/// Name of an IPVS state as `ipvsadm -c` prints it; `None` if it was not read.
#[must_use]
pub fn state(conn: &IpvsConn) -> Option<String> {
    (conn.have & ipvs_conn::STATE != 0)
        .then(|| ipvs_conn::state_name(conn.state).map_or_else(|| conn.state.to_string(), str::to_owned))
}

/// The real server of an entry and its weight, in one line.
#[must_use]
pub fn server(conn: &IpvsConn) -> String {
    let server = real_server(conn).map_or_else(
        || "a real server (address not readable on this kernel)".to_owned(),
        |server| format!("real server {server}"),
    );
    if conn.have & ipvs_conn::WEIGHT == 0 {
        server
    } else {
        format!("{server}, weight {}", conn.weight)
    }
}

/// The known facts about an old entry, in one line.
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
        "found (fields not readable on this kernel)".to_owned()
    } else {
        parts.join(", ")
    }
}

/// The known facts about the entry that an old connection left behind, one by one.
#[must_use]
pub fn old_entry(conn: &IpvsConn) -> Vec<Evidence> {
    let fact = |key: Key, value: String| Evidence::seen(key, value, Hook::IpvsLookup);
    let state = state(conn).unwrap_or_else(|| "entry found, state not readable on this kernel".to_owned());
    let mut out = vec![fact(Key::OldEntryState, state)];
    if let Some(backend) = real_server(conn) {
        out.push(fact(Key::OldEntryServer, backend.to_string()));
    }
    if conn.have & ipvs_conn::WEIGHT != 0 {
        out.push(fact(Key::OldEntryWeight, conn.weight.to_string()));
    }
    if conn.have & ipvs_conn::AVAILABLE != 0 {
        let value = if conn.available == 0 { "removed" } else { "present" };
        out.push(fact(Key::OldEntryInService, value.to_owned()));
    }
    if conn.have & ipvs_conn::NO_DEST != 0 {
        out.push(fact(Key::OldEntryServer, "none bound".to_owned()));
    }
    if conn.have & ipvs_conn::CONTROLLED != 0 {
        out.push(fact(
            Key::OldEntryAffinity,
            "controlled by a persistence template".to_owned(),
        ));
    }
    out
}

/// The conntrack entry that the SYN carried when IPVS looked up its connection; `None` if it was not read.
#[must_use]
pub fn old_conntrack(conn: &IpvsConn) -> Option<String> {
    if conn.have & ipvs_conn::CT_STATUS == 0 {
        return None;
    }
    let confirmed = if conn.ct_status & conntrack::CONFIRMED == 0 {
        "new, unconfirmed"
    } else {
        "old, confirmed"
    };
    let state = (conn.have & ipvs_conn::CT_TCP_STATE != 0)
        .then(|| conntrack::tcp_state_name(conn.ct_tcp_state))
        .flatten()
        .map_or_else(String::new, |state| format!(", TCP state {state}"));
    Some(format!("{confirmed}{state}"))
}

/// TCP state of a conntrack entry, and whether it has seen an answer.
#[must_use]
pub fn conntrack_state(entry: &Conntrack) -> String {
    let answered = if entry.status & conntrack::SEEN_REPLY == 0 {
        "not answered"
    } else {
        "answered"
    };
    let state = conntrack::tcp_state_name(entry.tcp_state)
        .map_or_else(String::new, |state| format!("TCP state {state}, "));
    format!("{state}{answered}")
}

/// The conntrack state of a packet, in the terms of the rules (`ct state`, `ctstate`).
#[must_use]
pub fn packet_state(state: &PacketState) -> &'static str {
    if state.ct == 0 {
        return match state.info {
            packet_state::UNTRACKED => "UNTRACKED",
            _ => "without an entry (INVALID, or not processed yet)",
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
        Key::EarlierFlow,
        format!(
            "flow {}, started {seconds:.3} s earlier, {}{backend}",
            earlier.id, earlier.fate
        ),
        Hook::NetifReceive,
    ))
}

/// The place of a step: `eth0` or `cali1 in netns 4026532…`.
#[must_use]
pub fn place(step: &Step) -> String {
    let dev = step.event.dev.get();
    match (dev, step.event.netns) {
        (Some(dev), 0) => dev,
        (Some(dev), netns) => format!("{dev} in netns {netns}"),
        (None, 0) if step.netns == 0 => "no device".to_owned(),
        // A packet that the namespace itself sends has no device before it is routed.
        (None, 0) => format!("no device yet, netns {}", step.netns),
        (None, netns) => format!("netns {netns}"),
    }
}

/// Function, place and reason of a drop; nothing for any other step.
#[must_use]
pub fn dropped(step: &Step, facts: &Facts) -> Vec<Evidence> {
    let Payload::Drop(drop) = &step.event.payload else {
        return Vec::new();
    };
    let mut out = vec![
        Evidence::seen(Key::DroppedIn, location(step, facts), Hook::KfreeSkb),
        Evidence::seen(Key::DroppedAt, place(step), Hook::KfreeSkb),
    ];
    if drop.reason != UNKNOWN_NUMBER {
        let name = facts
            .drop_reasons
            .get(&drop.reason)
            .cloned()
            .unwrap_or_else(|| drop.reason.to_string());
        out.push(Evidence::seen(Key::DropReason, name, Hook::KfreeSkb));
    }
    out
}

/// The function of a symbol with an offset: `ip_tunnel_xmit` of `ip_tunnel_xmit+0x3b [ip_tunnel]`, also where the compiler
/// split it (`ip_tunnel_xmit.cold`).
#[must_use]
pub fn function(symbol: &str) -> &str {
    symbol.split(['+', '.', ' ']).next().unwrap_or(symbol)
}

/// The kernel function that dropped the packet, with the offset in it; of any other step, the hooked function.
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

/// The sender of the RST that refused a SYN, if that was seen.
#[must_use]
pub fn reset(flow: &Flow, attempt: usize) -> Option<Evidence> {
    let step = flow
        .steps_of(attempt)
        .find(|step| step.event.hook == Hook::TcpSendReset)?;
    Some(Evidence::seen(Key::RstSentBy, place(step), step.event.hook))
}

/// The ICMP error that was sent to the client.
#[must_use]
pub fn icmp(flow: &Flow) -> Option<Evidence> {
    flow.steps.iter().find_map(|step| match &step.event.payload {
        Payload::Icmp(icmp) => Some(Evidence::seen(
            Key::IcmpToClient,
            icmp_name(icmp, step.event.tuple.is_v6()),
            step.event.hook,
        )),
        _ => None,
    })
}

/// Name, type and code of an ICMP error (RFC 792, RFC 1812; RFC 4443 for ICMPv6).
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
        (1, 5) => "source address failed policy",
        (1, 6) => "reject route to destination",
        (2, 0) => "packet too big",
        (3, 0) => "hop limit exceeded",
        (3, 1) => "fragment reassembly time exceeded",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_key_and_label() {
        let fact = Evidence::seen(Key::RstSentBy, "eth0", Hook::TcpSendReset);
        let json = serde_json::to_value(&fact).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "key": "rst-sent-by",
                "what": Key::RstSentBy.label(),
                "value": "eth0",
                "hook": Hook::TcpSendReset.name(),
            })
        );
    }
}
