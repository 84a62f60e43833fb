//! The answer: discarded on its way back through this node, not translated, or gone another way.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
};
use crate::{
    decode::event::Payload,
    flow::model::{Flow, Step},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::ReturnNotTranslated,
        says: "The SYN-ACK came back to this node and was not translated back: it left with the backend's address, or with \
               that of another service, or the node took it for its own.",
        proof: "A SYN-ACK of this flow was handed to a device of the node with another source than the NodePort; or IPVS \
                was about to translate it to another virtual service than the client asked; or the node's own TCP refused \
                a SYN-ACK that still had a translated address.",
        advice: Some(
            "The entry that knew the translation is gone, or belongs to another connection: look for what removes entries \
             (`conntrack -F`, a restart of kube-proxy that recreates services, IPVS' drop_entry, timeouts shorter than \
             the backend's answer), and whether two NodePorts lead the same client port to the same pod without \
             masquerade.",
        ),
        occurs: "Every kernel and dataplane. That IPVS translates to another service is seen where the kernel gives BTF \
                 for modules (5.11 and later).",
        hooks: &[&[Hook::DevStartXmit], &[Hook::TcpSendReset]],
        find: not_translated,
    },
    Row {
        cause: Cause::ReturnBypassed,
        says: "The backend answered, but its SYN-ACK did not come back through this node, where it would have been \
               translated.",
        proof: "The backend's SYN-ACK left its network namespace by another device than the SYN came in by and never came \
                to this node; or none was seen at all, and the client refused, with RST and the number that only this \
                SYN's answer has, a connection from the backend's own address.",
        advice: Some(
            "The backend has another way to the client than through this node. Masquerade the client \
             (externalTrafficPolicy: Cluster), or route the backend's answers back through the node that translated: \
             without masquerade this happens to backends on other nodes and to pods with a second network.",
        ),
        occurs: "Every kernel and dataplane, without masquerade. Of a backend on another node it is seen only if the \
                 client's RST comes through this node.",
        hooks: &[&[Hook::DevStartXmit], &[Hook::NetifReceive]],
        find: bypassed,
    },
    Row {
        cause: Cause::ReturnDropped,
        says: "The SYN-ACK was discarded on this node; the cause of that drop is named inside.",
        proof: "The SYN-ACK was freed as discarded in the node's network namespace and went no further.",
        advice: Some("Look at the part of this node that is named as having discarded the answer."),
        occurs: "Every kernel and dataplane.",
        // What discarded the answer is asked for first, as for a SYN; `dropped` then puts this around it.
        hooks: &[&[Hook::KfreeSkb]],
        find: |_| None,
    },
];

/// Puts "the answer was discarded" around the cause of that.
pub(super) fn dropped(cause: Cause, inner: Proof) -> (Cause, Proof) {
    let mut evidence = vec![Evidence::seen(
        "cause of the answer's drop",
        cause.name(),
        Hook::KfreeSkb,
    )];
    evidence.extend(inner.evidence);
    let proof = Proof {
        explanation: format!(
            "The backend answered, but its SYN-ACK did not leave this node. {}",
            inner.explanation
        ),
        evidence,
    };
    (Cause::ReturnDropped, proof)
}

fn not_translated(case: &Case<'_>) -> Option<Proof> {
    // An answer that the client got as it must be is none of these.
    let right = case.flow.answers_sent().any(|step| step.attempt == case.attempt);
    if case.situation == Situation::Refused || right {
        return None;
    }
    left_untranslated(case)
        .or_else(|| other_service(case))
        .or_else(|| taken_by_node(case))
}

/// A SYN-ACK went to the client with another source than the NodePort.
fn left_untranslated(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let step = case.steps().find(|step| {
        step.event.part == Part::SynAck
            && step.event.hook == Hook::DevStartXmit
            && flow.is_on_node(&step.event)
            && step.event.tuple.destination() == flow.client()
            && step.event.tuple.source() != flow.node()
    })?;
    let mut evidence = vec![
        Evidence::seen("SYN-ACK left by", evidence::place(step), step.event.hook),
        Evidence::seen(
            "its source",
            format!("{} instead of {}", step.event.tuple.source(), flow.node()),
            step.event.hook,
        ),
    ];
    evidence.extend(unmet_entry(case));
    evidence.extend(refused_by_client(flow));
    Some(Proof {
        explanation: format!(
            "The SYN-ACK went out to the client from {} and not from {}, to which the client had sent its SYN: it was not \
             translated back.",
            step.event.tuple.source(),
            flow.node(),
        ),
        evidence,
    })
}

/// IPVS was asked about the SYN, and not about its answer.
fn unmet_entry(case: &Case<'_>) -> Option<Evidence> {
    let seen = |hook| case.steps().any(|step| step.event.hook == hook);
    (seen(Hook::IpvsNatXmit) && !seen(Hook::IpvsReply)).then(|| {
        Evidence::seen(
            "IPVS entry for the answer",
            "none: the one that the SYN went by was not found",
            Hook::IpvsReply,
        )
    })
}

/// The connection entry that IPVS found for the answer belongs to another service.
fn other_service(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let (step, vip) = case.steps().find_map(|step| match &step.event.payload {
        Payload::Vip(vip) => Some((step, vip)),
        _ => None,
    })?;
    let service = evidence::service(vip);
    if service == flow.node() {
        return None;
    }
    let mut evidence = vec![
        Evidence::seen("service of the entry", service.to_string(), Hook::IpvsReply),
        Evidence::seen(
            "service that was asked",
            flow.node().to_string(),
            Hook::NetifReceive,
        ),
        Evidence::seen(
            "answer of the backend",
            format!(
                "{} -> {}",
                step.event.tuple.source(),
                step.event.tuple.destination()
            ),
            Hook::IpvsReply,
        ),
    ];
    evidence.extend(refused_by_client(flow));
    Some(Proof {
        explanation: format!(
            "IPVS translated the SYN-ACK back to {service} and not to {}: the client has a connection from the same port to \
             that service, with the same backend, and IPVS found its entry first.",
            flow.node(),
        ),
        evidence,
    })
}

/// Nobody translated the SYN-ACK, so it was addressed to the node itself, whose TCP knows nothing of it.
fn taken_by_node(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let step = case.steps().find(|step| {
        step.event.part == Part::SynAck
            && step.event.hook == Hook::TcpSendReset
            && flow.is_on_node(&step.event)
            && step.event.tuple != flow.original.reversed()
            && matches!(&step.event.payload, Payload::Socket(socket) if socket.sock == 0)
    })?;
    let way = format!(
        "{} -> {}",
        step.event.tuple.source(),
        step.event.tuple.destination()
    );
    Some(Proof {
        explanation: format!(
            "The SYN-ACK {way} came back to this node and nobody translated it: the node took it for its own and answered \
             the backend with RST."
        ),
        evidence: vec![
            Evidence::seen("answer of the backend", way, Hook::TcpSendReset),
            Evidence::seen("RST sent by", evidence::place(step), Hook::TcpSendReset),
        ],
    })
}

/// The client's RST for an answer that it did not expect.
fn refused_by_client(flow: &Flow) -> Option<Evidence> {
    let step = resets_from_client(flow).next()?;
    Some(Evidence::seen(
        "client answered with RST to",
        step.event.tuple.destination().to_string(),
        step.event.hook,
    ))
}

/// RSTs from the client to anything but the NodePort.
fn resets_from_client(flow: &Flow) -> impl Iterator<Item = &Step> {
    flow.steps.iter().filter(|step| {
        step.event.part == Part::Rst
            && step.event.hook == Hook::NetifReceive
            && flow.is_on_node(&step.event)
            && step.event.tuple.source() == flow.client()
            && step.event.tuple.destination() != flow.node()
    })
}

fn bypassed(case: &Case<'_>) -> Option<Proof> {
    if !matches!(case.situation, Situation::Silent | Situation::Late) {
        return None;
    }
    let flow = case.flow;
    let came_here = case
        .steps()
        .any(|step| step.event.part == Part::SynAck && flow.is_on_node(&step.event) && step.event.netns != 0);
    if came_here {
        return None;
    }
    let (mut evidence, explanation) = left_elsewhere(case).or_else(|| client_refused_backend(case))?;
    evidence.extend(refused_by_client(flow).filter(|_| flow.synacks > 0));
    Some(Proof {
        explanation,
        evidence,
    })
}

/// The SYN-ACK left the backend by another device than the SYN came in by.
fn left_elsewhere(case: &Case<'_>) -> Option<(Vec<Evidence>, String)> {
    let flow = case.flow;
    let left = case.steps().find(|step| {
        step.event.part == Part::SynAck
            && step.event.hook == Hook::DevStartXmit
            && !flow.is_on_node(&step.event)
            // Who was sent the SYN as it came answers as the client expects it, by whatever way.
            && step.event.tuple != flow.original.reversed()
    })?;
    let came = case.steps().find(|step| {
        step.event.part == Part::Syn
            && step.event.hook == Hook::NetifReceive
            && step.event.netns == left.event.netns
            && step.event.tuple == left.event.tuple.reversed()
    })?;
    if came.event.ifindex == 0 || left.event.ifindex == 0 || came.event.ifindex == left.event.ifindex {
        return None;
    }
    let evidence = vec![
        Evidence::seen(
            "SYN came to the backend by",
            evidence::place(came),
            came.event.hook,
        ),
        Evidence::seen("SYN-ACK left it by", evidence::place(left), left.event.hook),
        Evidence::seen(
            "SYN-ACK as it left",
            format!(
                "{} -> {}",
                left.event.tuple.source(),
                left.event.tuple.destination()
            ),
            left.event.hook,
        ),
    ];
    let device = left
        .event
        .dev
        .get()
        .unwrap_or_else(|| "another device".to_owned());
    let explanation = format!(
        "The backend {} answered, but by {device} and not through this node: nobody translated the answer back.",
        left.event.tuple.source(),
    );
    Some((evidence, explanation))
}

/// The client refuses what came to it from the backend's own address.
fn client_refused_backend(case: &Case<'_>) -> Option<(Vec<Evidence>, String)> {
    let flow = case.flow;
    if flow.synacks > 0 {
        return None;
    }
    let backend = flow.backend()?;
    let reset = resets_from_client(flow).find(|step| step.event.tuple.destination() == backend)?;
    let evidence = vec![
        Evidence::seen("SYN-ACKs through this node", "0", Hook::NetifReceive),
        Evidence::seen(
            "client answered with RST to",
            backend.to_string(),
            reset.event.hook,
        ),
    ];
    let explanation = format!(
        "The backend {backend} answered the client directly and not through this node: the client, which expects the \
         answer from {}, refused it.",
        flow.node(),
    );
    Some((evidence, explanation))
}
