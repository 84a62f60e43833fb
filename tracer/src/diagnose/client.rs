//! The answer went out to the client, and the client did not finish the handshake.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
};
use crate::flow::{
    judge,
    model::{Flow, Step},
};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::ClientSilent,
    group: Group::Ends,
    summary: "The SYN-ACK went out to the client, correctly translated, and no ACK came back.",
    proof: "The SYN-ACK, with the NodePort's address, was handed to a device of the node and not dropped; no ACK came in before \
            a retransmission or before tracer's patience ended. The explanation shows whether a RST came from the client \
            instead, or a client on the node itself had no socket for the answer.",
    advice: Some(
        "This node did its part. If no RST came, the answer or the ACK was lost between here and the client: check firewalls and \
         routes on that path, especially where the answer leaves through a device other than the one the SYN came in through. If \
         a RST came, check the client's connect timeout and the address that it connects to: it gave up before the answer \
         arrived, or did not expect it from this address.",
    ),
    scope: "Every kernel and dataplane. The flow is unanswered if the handshake did not finish, and stalled if it finished after a \
            SYN or SYN-ACK was retransmitted.",
    hooks: &[&[Hook::DevStartXmit], &[Hook::NetifReceive]],
    absence: Absence::Tracepoints,
    light: Light::Hidden,
    detect: silent,
}];

/// The step at which the client's own RST came in instead of its ACK.
fn reset(flow: &Flow) -> Option<&Step> {
    flow.steps.iter().find(|step| {
        step.event.part == Part::Rst
            && step.event.hook == Hook::NetifReceive
            && step.event.tuple == flow.original
            && flow.is_on_node(&step.event)
    })
}

fn silent(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    match case.situation {
        Situation::Silent => {}
        // An unanswered SYN has another cause.
        Situation::Late if flow.is_answered(case.attempt) => {}
        _ => return None,
    }
    let gone = judge::refused_by_client(flow).filter(|_| case.situation == Situation::Silent);
    if let Some(step) = gone {
        return Some(Proof::new(
            "The backend answered, but the client on this node was gone by then: its TCP answered the SYN-ACK with RST.",
            [
                Evidence::seen(Key::RstSentBy, evidence::place(step), step.event.hook),
                Evidence::seen(Key::SynAckSocket, "none", step.event.hook),
            ],
        ));
    }
    let sent = flow.sent_of(case.attempt);
    let is_own = |step: &&Step| case.situation != Situation::Late || flow.sent_of(step.attempt) == sent;
    let left = flow.answers_sent().find(is_own)?;
    if let Some(step) = reset(flow).filter(|_| case.situation == Situation::Silent) {
        return Some(Proof::new(
            "The backend answered, and the client closed the connection with RST instead of accepting the answer.",
            evidence(flow, left).chain([Evidence::seen(
                Key::RstFromClient,
                evidence::place(step),
                step.event.hook,
            )]),
        ));
    }
    if case.situation == Situation::Silent {
        return Some(Proof::new(
            "The backend's answer went out to the client, and no ACK came back through this node.",
            evidence(flow, left),
        ));
    }
    // A SYN-ACK that left after the first retransmission proves nothing about what the client received before.
    let retransmission = flow.retransmission_after_ns(case.attempt)?;
    // A SYN-ACK that the backend retransmitted although the client's ACK had come in proves nothing either.
    let acknowledged = flow.established_ns.is_some_and(|ack| ack < retransmission);
    if left.event.time_ns >= retransmission || acknowledged {
        return None;
    }
    Some(Proof::new(
        format!(
            "The {} was answered and the answer went out to the client, but no ACK came before a retransmission: the answer or the \
             ACK was lost or late between here and the client.",
            case.numbered_syn()
        ),
        evidence(flow, left),
    ))
}

fn evidence<'a>(flow: &'a Flow, left: &'a Step) -> impl Iterator<Item = Evidence> + use<'a> {
    [
        Evidence::seen(Key::SynAcksSeen, flow.synacks.to_string(), Hook::DevStartXmit),
        Evidence::seen(Key::SynAckLeftBy, evidence::place(left), left.event.hook),
    ]
    .into_iter()
    .chain(asymmetry(flow, left))
}

/// The device through which the SYN came in, if the answer left through another one.
fn asymmetry(flow: &Flow, left: &Step) -> Option<Evidence> {
    let came = flow.steps.iter().find(|step| {
        step.event.hook == Hook::NetifReceive
            && step.event.part == Part::Syn
            && step.event.tuple == flow.original
            && flow.is_on_node(&step.event)
    })?;
    (came.event.ifindex != 0 && left.event.ifindex != 0 && came.event.ifindex != left.event.ifindex)
        .then(|| Evidence::seen(Key::SynCameInBy, evidence::place(came), came.event.hook))
}
