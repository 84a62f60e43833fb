//! The backend still has a connection from the same address and port, which was never closed there or is just being
//! closed: its socket, and not the listener, gets the SYN.

use tracer_common::hook::Hook;

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    tcp,
};
use crate::{decode::event::Payload, flow::model::Step};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::TcpOldConnection,
    says: "The backend still has a connection from the same address and port, open or just being closed, whose socket got the \
           SYN and threw it away.",
    proof: "The SYN was freed by tcp_validate_incoming, or for the reason TCP_INVALID_SYN: only the socket of a connection \
            that is open looks at a SYN there (RFC 5961, section 4). Or it was freed for the reason TCP_CLOSE: it had waited for \
            a socket that its application was closing at that moment (__tcp_close, net/ipv4/tcp.c, takes in what has waited \
            when the connection is over already). No listener was asked about it.",
    advice: Some(
        "The backend does not know that its old connection is gone: the client vanished, its FIN or RST was lost, or \
         several clients share an address and a port towards the backend and conntrack had forgotten the connection \
         (look at nf_conntrack_tcp_timeout_established, and whether it is shorter than connections are idle). Let the \
         backend use TCP keepalive and the client close what it leaves. Where it was just being closed, the client used its \
         port again in the same moment: let it keep connections alive, or leave the choice of the port to its kernel.",
    ),
    occurs: "Every dataplane, if the backend is on this node. 5.10 frees such a SYN without a word (tcp_drop): there it is \
             unknown. An open socket answers with a bare ACK, upon which the client sends a RST that ends the old \
             connection, and then its SYN again: a client on Linux 5.10 or later after some milliseconds, others after a \
             second. One that is being closed answers nothing, and the client waits a second; that takes a client that uses \
             its port again at once.",
    hooks: &[&[Hook::KfreeSkb]],
    find: met,
}];

/// The function in which an open connection looks at what comes (`net/ipv4/tcp_input.c`).
const VALIDATE: &str = "tcp_validate_incoming";
/// Why it throws a SYN away, on kernels that tell (`SKB_DROP_REASON_TCP_INVALID_SYN`).
const REASON: &str = "TCP_INVALID_SYN";
/// Why a socket that was closed while the SYN waited for it does (`tcp_rcv_state_process`, `net/ipv4/tcp_input.c`).
const CLOSED: &str = "TCP_CLOSE";

fn met(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Silent | Situation::Late) {
        return None;
    }
    let step = tcp::thrown_away(case)?;
    let old = Old::that_discarded(case, step)?;
    let asked = |step: &Step| matches!(step.event.hook, Hook::TcpConnRequest | Hook::TcpTimewait);
    if case.steps().any(asked) {
        return None;
    }
    let flow = case.flow;
    let (client, backend) = (step.event.tuple.source(), step.event.tuple.destination());
    let mut evidence = vec![Evidence::seen(
        "connection in the backend",
        format!("{client} -> {backend}, {}", old.word()),
        Hook::KfreeSkb,
    )];
    evidence.extend(evidence::discarded(step, case.facts));
    if client != flow.client() {
        evidence.push(Evidence::seen(
            "client as the backend sees it",
            client.to_string(),
            Hook::KfreeSkb,
        ));
    }
    evidence.extend(evidence::earlier(flow));
    Some(Proof {
        explanation: match old {
            Old::Open => format!(
                "The backend at {backend} still has an open connection from {client}, whose socket threw the SYN away and \
                 answered for that connection, if at all."
            ),
            Old::Closing => format!(
                "The backend at {backend} was just closing its old connection from {client}, whose socket got the SYN and \
                 threw it away in silence."
            ),
        },
        evidence,
    })
}

/// The connection whose socket got the SYN.
#[derive(Clone, Copy)]
enum Old {
    Open,
    Closing,
}

impl Old {
    /// The one that threw the SYN away at this step, if it was one.
    fn that_discarded(case: &Case<'_>, step: &Step) -> Option<Self> {
        let Payload::Drop(drop) = &step.event.payload else {
            return None;
        };
        let function = case.facts.symbol(drop.location).map(evidence::function);
        let reason = case.facts.drop_reasons.get(&drop.reason).map(String::as_str);
        match (function, reason) {
            (Some(VALIDATE), _) | (_, Some(REASON)) => Some(Self::Open),
            (_, Some(CLOSED)) => Some(Self::Closing),
            _ => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closing => "being closed",
        }
    }
}
