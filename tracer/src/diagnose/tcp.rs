//! The backend's TCP refused the SYN, or threw it away.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::flow::{
    event::What,
    model::{Flow, Step},
};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::TcpNoListener,
    says: "Nothing listens on the backend's port.",
    proof: "tcp_v4_send_reset was called for the SYN without a socket, and the refusal went back to the client.",
    advice: Some(
        "The pod is reached but nothing listens on that port: look at targetPort and the container.",
    ),
    occurs: "Every kernel and dataplane, if the backend is on this node.",
    hooks: &[&[Hook::TcpSendReset]],
    find: no_listener,
}];

/// The step at which a TCP without a socket for the SYN refused it.
pub(super) fn refusal(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps_of(attempt).find(|step| {
        step.event.part == Part::Syn
            && step.event.hook == Hook::TcpSendReset
            && matches!(&step.event.what, What::Socket(socket) if socket.sock == 0)
    })
}

fn no_listener(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Refused {
        return None;
    }
    let flow = case.flow;
    let reset = refusal(flow, case.attempt)?;
    let target = reset.event.tuple.destination();
    let in_pod = !flow.is_on_node(&reset.event);
    let who = if in_pod { "the pod" } else { "this node" };
    let mut evidence = vec![
        Evidence::seen(
            "RST sent by",
            format!("{who} ({})", evidence::place(reset)),
            Hook::TcpSendReset,
        ),
        Evidence::seen("socket for the SYN", "none", Hook::TcpSendReset),
    ];
    if let Some(step) = case
        .steps()
        .find(|step| matches!(step.event.what, What::Drop(_)) && step.event.part == Part::Syn)
    {
        evidence.extend(evidence::discarded(step, case.facts));
    }
    Some(Proof {
        explanation: format!(
            "The SYN reached {who} at {target}, but nothing listens there: its TCP answered with RST."
        ),
        evidence,
    })
}

/// The step at which TCP in the backend's netns threw the SYN away: a backend that is not silent at all, for it may
/// have answered with something else than a SYN-ACK (an old socket in `TIME_WAIT` sends an ACK).
pub(super) fn thrown_away<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let in_tcp = |location| {
        case.facts
            .symbol(location)
            .is_some_and(|symbol| symbol.starts_with("tcp_"))
    };
    case.steps().find(|step| {
        step.event.part == Part::Syn && matches!(&step.event.what, What::Drop(drop) if in_tcp(drop.location))
    })
}

/// The step at which a listener took the SYN.
pub(super) fn taken(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps_of(attempt)
        .find(|step| step.event.hook == Hook::TcpConnRequest)
}

/// How full the listener's accept queue was when it took a SYN.
pub(super) fn queue(step: &Step) -> Option<Evidence> {
    match &step.event.what {
        What::Socket(socket) if socket.ack_backlog != u32::MAX && socket.max_ack_backlog != u32::MAX => {
            let value = format!("{} of {}", socket.ack_backlog, socket.max_ack_backlog);
            Some(Evidence::seen(
                "connections in the listener's accept queue",
                value,
                step.event.hook,
            ))
        }
        _ => None,
    }
}
