//! The backend still has a connection from the same address and port, open or just being closed: its socket receives the SYN, not
//! the listener.

use tracer_common::hook::Hook;

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{self, Evidence, Key},
        row::{Absence, Group, Light, Row},
        tcp,
    },
    flow::model::Step,
};

pub(in crate::diagnose) const ROWS: &[Row] = &[Row {
    cause: Cause::TcpOldConnection,
    group: Group::BackendTcp,
    summary: "The backend still has a connection from the same address and port, open or just being closed. Its socket received \
              the SYN and dropped it.",
    proof: "The SYN was freed by tcp_validate_incoming, or with the reason TCP_INVALID_SYN: only the socket of an open \
            connection processes a SYN there (RFC 5961, section 4). Or it was freed with the reason TCP_CLOSE: it was in the \
            backlog of a socket that its application was closing at that moment (__tcp_close, net/ipv4/tcp.c, processes the \
            backlog after the connection is over). No listener processed it.",
    advice: Some(
        "The backend does not know that its old connection is gone: the client vanished, its FIN or RST was lost, or several \
         clients reach the backend from the same address and port and conntrack had forgotten the connection (check whether \
         nf_conntrack_tcp_timeout_established is shorter than the idle time of connections). Enable TCP keepalive in the backend \
         and close connections in the client. Where the connection was just being closed, the client reused its port at that \
         very moment: keep connections alive, or let the client's kernel choose the port.",
    ),
    scope: "Every dataplane, if the backend is on this node. Not detectable on kernels before 5.18, which free such a SYN \
            without a trace (tcp_drop): the cause is unknown there. An open socket answers with a bare ACK; the client replies \
            with a RST that ends the old connection, and retransmits its SYN: on Linux 5.10 or later after a few milliseconds, \
            elsewhere after a second. A socket that is being closed does not answer, and the client waits a second; this happens \
            only to a client that reuses its port at once.",
    hooks: &[&[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::WithPath,
    detect,
}];

/// The function in which an open connection checks what comes in (`net/ipv4/tcp_input.c`).
const VALIDATE: &str = "tcp_validate_incoming";
/// The drop reason of a socket that was closed while the SYN was in its backlog (`tcp_rcv_state_process`,
/// `net/ipv4/tcp_input.c`).
const CLOSED: &str = "TCP_CLOSE";

fn detect(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Silent | Situation::Late) {
        return None;
    }
    let step = tcp::dropped_by_tcp(case)?;
    let old = Old::of_drop(case, step)?;
    let by_others = |step: &Step| matches!(step.event.hook, Hook::TcpConnRequest | Hook::TcpTimewait);
    if case.steps().any(by_others) {
        return None;
    }
    let flow = case.flow;
    let (client, backend) = (step.event.tuple.source(), step.event.tuple.destination());
    let mut evidence = vec![Evidence::seen(
        Key::OldConnection,
        format!("{client} -> {backend}, {}", old.name()),
        Hook::KfreeSkb,
    )];
    evidence.extend(evidence::dropped(step, case.facts));
    if client != flow.client() {
        evidence.push(Evidence::seen(
            Key::ClientSeenByBackend,
            client.to_string(),
            Hook::KfreeSkb,
        ));
    }
    evidence.extend(evidence::earlier(flow));
    let explanation = match old {
        Old::Open => format!(
            "The backend {backend} still has an open connection from {client}. Its socket dropped the SYN and sent at most an ACK \
             for the old connection."
        ),
        Old::Closing => format!(
            "The backend {backend} was just closing its old connection from {client}. That socket received the SYN and silently dropped \
             it."
        ),
    };
    Some(Proof::new(explanation, evidence))
}

/// The connection whose socket received the SYN.
#[derive(Clone, Copy)]
enum Old {
    Open,
    Closing,
}

impl Old {
    /// The connection whose socket dropped the SYN at this step, if one did.
    fn of_drop(case: &Case<'_>, step: &Step) -> Option<Self> {
        let Payload::Drop(drop) = &step.event.payload else {
            return None;
        };
        let function = case.facts.symbol(drop.location).map(evidence::function);
        let reason = case.facts.drop_reasons.get(&drop.reason).map(String::as_str);
        match (function, reason) {
            (Some(VALIDATE), _) | (_, Some(tcp::INVALID_SYN)) => Some(Self::Open),
            (_, Some(CLOSED)) => Some(Self::Closing),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closing => "being closed",
        }
    }
}
