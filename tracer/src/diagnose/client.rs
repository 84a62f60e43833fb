//! The answer went out to the client, and the client did not end the handshake.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::flow::{
    judge,
    model::{Flow, Step},
};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::ClientSilent,
    says: "The SYN-ACK went out to the client, translated as it must be, and no ACK came back.",
    proof: "The SYN-ACK, with the NodePort's address, was handed to a device of the node and not discarded; no ACK came in \
            before a packet was sent again or patience ended. A RST from the client instead is told as such, and so is a client on \
            the node itself whose TCP had no socket for the answer.",
    advice: Some(
        "This node did its part. If no RST came, the answer or the ACK was lost between here and the client: look at \
         firewalls and routes on that way, above all where the answer leaves by another device than the SYN came in by. \
         If a RST came, the client gave up before the answer was there, or did not expect it from this address.",
    ),
    occurs: "Every kernel and dataplane. The flow is unanswered if the handshake did not end, and stalled if it ended after \
             a SYN or SYN-ACK was sent again.",
    hooks: &[&[Hook::DevStartXmit], &[Hook::NetifReceive]],
    find: silent,
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
        // A SYN that came to nothing is another matter.
        Situation::Late if flow.answered_attempt() == Some(0) => {}
        _ => return None,
    }
    let gone = judge::refused_by_client(flow).filter(|_| case.situation == Situation::Silent);
    if let Some(step) = gone {
        return Some(Proof {
            explanation: "The backend answered, but the client, on this node, was gone by then: its TCP refused the answer with RST."
                .to_owned(),
            evidence: vec![
                Evidence::seen("RST sent by", evidence::place(step), step.event.hook),
                Evidence::seen("socket for the SYN-ACK", "none", step.event.hook),
            ],
        });
    }
    let left = flow.answers_sent().next()?;
    if let Some(step) = reset(flow).filter(|_| case.situation == Situation::Silent) {
        return Some(Proof {
            explanation: "The backend answered, and the client ended the connection with RST instead of taking the answer."
                .to_owned(),
            evidence: evidence(flow, left)
                .chain([Evidence::seen(
                    "RST from the client",
                    evidence::place(step),
                    step.event.hook,
                )])
                .collect(),
        });
    }
    if case.situation == Situation::Silent {
        return Some(Proof {
            explanation:
                "The backend's answer went out to the client, and no ACK came back through this node."
                    .to_owned(),
            evidence: evidence(flow, left).collect(),
        });
    }
    // The first repetition: a SYN-ACK that left after it proves nothing about what the client had got before.
    let again = flow.first_retransmission_ns()?;
    // Nor does one that the backend sent again although the client's ACK had come in.
    let acknowledged = flow.established_ns.is_some_and(|ack| ack < again);
    if left.event.time_ns >= again || acknowledged {
        return None;
    }
    Some(Proof {
        explanation: "The first SYN was answered and the answer went out to the client, but no ACK came before a packet was \
                      sent again: the answer or the ACK was lost or late between here and the client."
            .to_owned(),
        evidence: evidence(flow, left).collect(),
    })
}

fn evidence<'a>(flow: &'a Flow, left: &'a Step) -> impl Iterator<Item = Evidence> + use<'a> {
    [
        Evidence::seen("SYN-ACKs seen", flow.synacks.to_string(), Hook::DevStartXmit),
        Evidence::seen("SYN-ACK left by", evidence::place(left), left.event.hook),
    ]
    .into_iter()
    .chain(other_way(flow, left))
}

/// The device by which the SYN came in, if the answer left by another one.
fn other_way(flow: &Flow, left: &Step) -> Option<Evidence> {
    let came = flow.steps.iter().find(|step| {
        step.event.hook == Hook::NetifReceive
            && step.event.part == Part::Syn
            && step.event.tuple == flow.original
            && flow.is_on_node(&step.event)
    })?;
    (came.event.ifindex != 0 && left.event.ifindex != 0 && came.event.ifindex != left.event.ifindex).then(
        || {
            Evidence::seen(
                "asymmetric: the SYN came in by",
                evidence::place(came),
                came.event.hook,
            )
        },
    )
}
