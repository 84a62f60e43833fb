//! The answer to a connection that the node itself opened, which IPVS handles as a request.

use std::{net::SocketAddr, time::Duration};

use tracer_common::{hook::Hook, tcp::Part};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
    },
    flow::{
        model::{Step, real_server},
        refusal,
    },
};

/// The row of this subject. It comes before all others: whatever happened to the SYN-ACK after that, it should not have been at IPVS.
pub(in crate::diagnose) const ROWS: &[Row] = &[REPLY_AS_REQUEST];

const REPLY_AS_REQUEST: Row = Row {
    cause: Cause::IpvsReplyAsRequest,
    group: Group::IpvsServers,
    summary: "A process on the node connects from a source port that is also a NodePort. IPVS does not look at the ACK flag: it \
              handles the SYN-ACK as a request and sends it to a real server, so the connection does not open.",
    proof: "A socket of the node sent a SYN from this address and port (tcp_connect), the packet is a SYN-ACK that acknowledges \
            this SYN's sequence number, and IPVS sent it to a real server, found an entry for it, or refused it because \
            no real server is usable.",
    advice: Some(
        "Reserve the NodePort range (`sysctl -w net.ipv4.ip_local_reserved_ports=30000-32767`), so that the kernel does not \
         choose a NodePort as a source port. If a process binds such a source port itself, make it use another one.",
    ),
    scope: "IPVS, on every kernel. The flow's client is the peer that sent the SYN-ACK, and each SYN-ACK counts as a SYN. Not \
            detected if the node's SYN left before tracer started. It cannot occur with rules: conntrack knows the answer, and NAT \
            rules see only the first packet of a connection.",
    hooks: &[
        &[Hook::TcpConnect],
        &[
            Hook::IpvsNatXmit,
            Hook::IpvsDirectXmit,
            Hook::IpvsTunnelXmit,
            Hook::IpvsLookup,
        ],
    ],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect,
};

/// The ends of the connection that the node opened, its own first.
pub(in crate::diagnose) fn opened(case: &Case<'_>) -> Option<(SocketAddr, SocketAddr)> {
    first(case)?;
    let (client, node) = (case.flow.client(), case.flow.node());
    Some(if case.flow.is_own_connection {
        (node, client)
    } else {
        // The flow of a client on the node that connects to another NodePort.
        (client, node)
    })
}

/// The step at which IPVS first handled an answer as a request.
fn first<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let mut steps = case.flow.steps.iter();
    steps.find(|step| matches!(step.event.payload, Payload::OwnConnection(_)))
}

/// Whether this step shows that IPVS handles the answer as a request.
fn is_handled(case: &Case<'_>, step: &Step) -> bool {
    let is_request = case.flow.is_own_connection;
    match &step.event.payload {
        Payload::OwnConnection(_) => true,
        Payload::IpvsConn(conn) => {
            is_request
                && conn.conn != 0
                && (step.event.hook.is_ipvs_xmit() || step.event.hook == Hook::IpvsLookup)
        }
        Payload::IpvsService(_) => is_request,
        _ => false,
    }
}

fn detect(case: &Case<'_>) -> Option<Proof> {
    if case.situation == Situation::Established {
        return None;
    }
    let (own, peer) = opened(case)?;
    let handled = case.steps().find(|step| is_handled(case, step))?;
    let server = case.steps().find_map(|step| match &step.event.payload {
        Payload::IpvsConn(conn) if step.event.hook.is_ipvs_xmit() => real_server(conn),
        _ => None,
    });
    let what = match server {
        Some(server) => format!("handled the SYN-ACK as a request and sent it to the real server {server}"),
        None => "handled the SYN-ACK as a request".to_owned(),
    };
    let then = match case.situation {
        Situation::Refused => {
            let sent = match refusal::of(case.flow, case.attempt).map(|step| step.event.part) {
                Some(Part::Rst) => "A RST",
                _ => "An ICMP error",
            };
            format!(" {sent} went back to {peer}.")
        }
        Situation::Dropped => " This node then dropped it.".to_owned(),
        _ => String::new(),
    };
    let sent_ns = first(case).and_then(|step| match &step.event.payload {
        Payload::OwnConnection(own) => Some(own.opened_ns),
        _ => None,
    })?;
    let evidence = [
        Evidence::seen(
            Key::OwnConnection,
            connection(case, own, peer, sent_ns),
            Hook::TcpConnect,
        ),
        Evidence::seen(
            Key::SynAckAcknowledges,
            format!("the SYN with sequence number {}", case.flow.isn),
            handled.event.hook,
        ),
    ];
    let server = server.map(|server| Evidence::seen(Key::RealServer, server.to_string(), handled.event.hook));
    let dropped = case.dropped.map(|step| evidence::dropped(step, case.facts));
    Some(Proof::new(
        format!(
            "This node opened the connection itself, from {own} to {peer}. Port {} is a NodePort, so IPVS {what}. The socket that \
             waits for the SYN-ACK did not get it.{then}",
            own.port()
        ),
        evidence
            .into_iter()
            .chain(server)
            .chain(dropped.into_iter().flatten()),
    ))
}

/// The connection that the node opened.
fn connection(case: &Case<'_>, own: SocketAddr, peer: SocketAddr, sent_ns: u64) -> String {
    let before = Duration::from_nanos(case.flow.start_ns().saturating_sub(sent_ns));
    if case.flow.is_own_connection {
        format!(
            "{own} -> {peer}, SYN sent {:.1} ms before IPVS handled the SYN-ACK",
            before.as_secs_f64() * 1000.0
        )
    } else {
        format!("{own} -> {peer}")
    }
}
