//! Causes on the path of the SYN-ACK: it was dropped on this node, was not translated, or bypassed this node.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    bridge::Bridged,
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    ipvs::untracked,
    row::{Absence, Group, Light, Row},
};
use crate::{
    decode::event::Payload,
    flow::model::{Flow, Step},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: Cause::ReturnNotTranslated,
        group: Group::Ends,
        summary: "The SYN-ACK came back to this node and was not translated back: it left with the backend's address, or with \
                  that of another service, or the node treated it as its own.",
        proof: "A SYN-ACK of this flow was handed to a device of the node with a source other than the NodePort; or IPVS was \
                about to translate it to a virtual service other than the client's; or the node's own TCP refused a SYN-ACK that \
                still had a translated address.",
        advice: Some(
            "The entry with the translation is gone, or belongs to another connection: look for what removes entries (`conntrack \
             -F`, a restart of kube-proxy that recreates services, the drop_entry defence of IPVS, timeouts shorter than the \
             backend takes to answer), and check whether two NodePorts send the same client port to the same pod without masquerade.",
        ),
        scope: "Every kernel and dataplane. That IPVS translates to another service is detectable on kernels with BTF for modules \
                (5.11 and later).",
        hooks: &[&[Hook::DevStartXmit], &[Hook::TcpSendReset]],
        absence: Absence::Nothing,
        light: Light::Hidden,
        detect: not_translated,
    },
    Row {
        cause: Cause::ReturnBypassed,
        group: Group::Ends,
        summary: "The backend answered, but its SYN-ACK bypassed this node, which would have translated it.",
        proof: "The backend's SYN-ACK left its network namespace through a device other than the one the SYN came in through and \
                never came to this node; or no SYN-ACK was seen at all, and the client sent a RST to the backend's own address, \
                with the sequence number that only the answer to this SYN could have caused.",
        advice: Some(
            "The backend reaches the client without this node. Masquerade the client (externalTrafficPolicy: Cluster), or route the \
             backend's answers back through the node that translated: without masquerade this happens to backends on other nodes and \
             to pods with a second network.",
        ),
        scope: "Every kernel and dataplane, without masquerade. For a backend on another node it is detectable only if the \
                client's RST comes through this node.",
        hooks: &[&[Hook::DevStartXmit], &[Hook::NetifReceive]],
        absence: Absence::Tracepoints,
        light: Light::Hidden,
        detect: bypassed,
    },
    Row {
        cause: Cause::ReturnDropped,
        group: Group::Ends,
        summary: "This node dropped the SYN-ACK, for the inner cause given.",
        proof: "The SYN-ACK was freed as dropped in the node's network namespace and went no further.",
        advice: Some("Check the part of this node that dropped the SYN-ACK."),
        scope: "Every kernel and dataplane.",
        // The inner cause is looked for first, as for a SYN; `dropped` then wraps it.
        hooks: &[&[Hook::KfreeSkb]],
        absence: Absence::Nothing,
        light: Light::Proves,
        detect: |_| None,
    },
];

/// The proof that the SYN-ACK was dropped, built from the proof of the inner cause.
pub(super) fn dropped(case: &Case<'_>, cause: Cause, inner: Proof) -> Proof {
    let reason = Evidence::seen(Key::InnerCause, cause.name(), Hook::KfreeSkb);
    let explanation = format!(
        "The backend answered, but its SYN-ACK did not leave this node. {}",
        inner.explanation
    );
    let proof = Proof {
        blame: inner.blame,
        advice: inner.advice,
        ..Proof::new(explanation, std::iter::once(reason).chain(inner.evidence))
    };
    match cause {
        Cause::ConntrackInvalid => untracked::name_root(case, proof),
        Cause::NetfilterRuleDropped => untracked::add_evidence(case, proof),
        _ => proof,
    }
}

fn not_translated(case: &Case<'_>) -> Option<Proof> {
    // The client received a correct answer to this SYN.
    let is_answered = case.flow.answers_sent().any(|step| step.attempt == case.attempt);
    if case.situation == Situation::Refused || is_answered {
        return None;
    }
    left_untranslated(case)
        .or_else(|| other_service(case))
        .or_else(|| delivered_to_node(case))
}

/// Proves that a SYN-ACK went to the client with a source other than the NodePort.
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
        Evidence::seen(Key::SynAckLeftBy, evidence::place(step), step.event.hook),
        Evidence::seen(
            Key::SynAckSource,
            format!("{} instead of {}", step.event.tuple.source(), flow.node()),
            step.event.hook,
        ),
    ];
    let bridged = Bridged::of(case, step);
    let explanation = format!(
        "The SYN-ACK went out to the client from {} instead of {}: it was not translated back.",
        step.event.tuple.source(),
        flow.node(),
    );
    let skipped = bridged
        .as_ref()
        .filter(|bridged| bridged.skipped_netfilter() == Some(true));
    if let Some(bridged) = skipped {
        evidence.extend(bridged.evidence());
        evidence.extend(refused_by_client(flow));
        let setting = bridged.setting();
        return Some(
            Proof::new(
                format!(
                    "{explanation} It never went through netfilter: {}, and netfilter does not see bridged packets on this node.",
                    bridged.path()
                ),
                evidence,
            )
            .advise(format!(
                "Make bridged packets go through netfilter: `modprobe br_netfilter; sysctl -w {setting}=1`, and make both permanent \
                 in /etc/modules-load.d and /etc/sysctl.d. All bridged traffic on this node then goes through its rules, which \
                 costs CPU time."
            )),
        );
    }
    evidence.extend(unmatched_entry(case, bridged.is_some()));
    evidence.extend(bridged.iter().flat_map(Bridged::evidence));
    evidence.extend(refused_by_client(flow));
    Some(Proof::new(explanation, evidence))
}

/// Evidence that IPVS sent the SYN and did not translate its answer. It is not seen whether a bridged answer reached IPVS.
fn unmatched_entry(case: &Case<'_>, is_bridged: bool) -> Option<Evidence> {
    let seen = |hook| case.steps().any(|step| step.event.hook == hook);
    (!is_bridged && seen(Hook::IpvsNatXmit) && !seen(Hook::IpvsReply)).then(|| {
        Evidence::seen(
            Key::AnswerEntry,
            "none: IPVS did not translate the SYN-ACK",
            Hook::IpvsReply,
        )
    })
}

/// Proves that the connection entry that IPVS found for the answer belongs to another service.
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
        Evidence::seen(Key::EntryService, service.to_string(), Hook::IpvsReply),
        Evidence::seen(Key::AskedService, flow.node().to_string(), Hook::NetifReceive),
        Evidence::seen(
            Key::SynAckAddresses,
            format!(
                "{} -> {}",
                step.event.tuple.source(),
                step.event.tuple.destination()
            ),
            Hook::IpvsReply,
        ),
    ];
    evidence.extend(refused_by_client(flow));
    Some(Proof::new(
        format!(
            "IPVS translated the SYN-ACK back to {service} instead of {}: the client has a connection from the same port to that \
             service, with the same backend, and IPVS found its entry first.",
            flow.node(),
        ),
        evidence,
    ))
}

/// Proves that nothing translated the SYN-ACK: it was addressed to the node itself, whose TCP has no socket for it.
fn delivered_to_node(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let step = case.steps().find(|step| {
        step.event.part == Part::SynAck
            && step.event.hook == Hook::TcpSendReset
            && flow.is_on_node(&step.event)
            && step.event.tuple != flow.original.reversed()
            && matches!(&step.event.payload, Payload::Socket(socket) if socket.sock == 0)
    })?;
    let addresses = format!(
        "{} -> {}",
        step.event.tuple.source(),
        step.event.tuple.destination()
    );
    Some(Proof::new(
        format!(
            "The SYN-ACK {addresses} came back to this node and was not translated: the node treated it as its own and answered the \
             backend with RST."
        ),
        [
            Evidence::seen(Key::SynAckAddresses, addresses.clone(), Hook::TcpSendReset),
            Evidence::seen(Key::RstSentBy, evidence::place(step), Hook::TcpSendReset),
        ],
    ))
}

/// The client's RST for an answer that it did not expect.
fn refused_by_client(flow: &Flow) -> Option<Evidence> {
    let step = resets_from_client(flow).next()?;
    Some(Evidence::seen(
        Key::ClientReset,
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
    let mut proof = left_elsewhere(case).or_else(|| client_refused_backend(case))?;
    proof
        .evidence
        .extend(refused_by_client(flow).filter(|_| flow.synacks > 0));
    Some(untracked::add_evidence(case, proof))
}

/// Proves that the SYN-ACK left the backend through a device other than the one the SYN came in through.
fn left_elsewhere(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    let left = case.steps().find(|step| {
        step.event.part == Part::SynAck
            && step.event.hook == Hook::DevStartXmit
            && !flow.is_on_node(&step.event)
            // A backend that received an unmodified SYN answers as the client expects, whatever the path.
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
    let device = left
        .event
        .dev
        .get()
        .unwrap_or_else(|| "another device".to_owned());
    Some(Proof::new(
        format!(
            "The backend {} answered through {device}, bypassing this node: its SYN-ACK was not translated back.",
            left.event.tuple.source(),
        ),
        [
            Evidence::seen(Key::SynReachedBackendBy, evidence::place(came), came.event.hook),
            Evidence::seen(Key::SynAckLeftBackendBy, evidence::place(left), left.event.hook),
            Evidence::seen(
                Key::SynAckAddresses,
                format!(
                    "{} -> {}",
                    left.event.tuple.source(),
                    left.event.tuple.destination()
                ),
                left.event.hook,
            ),
        ],
    ))
}

/// Proves that the client refused a SYN-ACK from the backend's own address.
fn client_refused_backend(case: &Case<'_>) -> Option<Proof> {
    let flow = case.flow;
    if flow.synacks > 0 {
        return None;
    }
    let backend = flow.backend()?;
    let reset = resets_from_client(flow).find(|step| step.event.tuple.destination() == backend)?;
    Some(Proof::new(
        format!(
            "The backend {backend} answered the client directly, bypassing this node. The client expects the answer from {} and \
             refused it.",
            flow.node(),
        ),
        [
            Evidence::seen(Key::SynAcksThroughNode, "0", Hook::NetifReceive),
            Evidence::seen(Key::ClientReset, backend.to_string(), reset.event.hook),
        ],
    ))
}
