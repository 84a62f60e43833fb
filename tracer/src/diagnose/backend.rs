//! What the backend did, or did not do.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    Finding,
    cause::Cause,
    evidence::{self, Evidence},
    ipvs, lost,
};
use crate::{
    flow::{
        event::What,
        judge::{self, End},
        model::{Flow, Step},
    },
    node::facts::Facts,
};

/// RST or ICMP went back to the client: who sent it, and why?
pub(crate) fn refused(flow: &Flow, facts: &Facts) -> Finding {
    let last = flow.attempts.len().saturating_sub(1);
    if let Some(finding) = ipvs::refused(flow, last, facts) {
        return finding;
    }
    if let Some(reset) = no_listener(flow, last) {
        return finding_no_listener(flow, last, reset, facts);
    }
    let mut evidence: Vec<_> = evidence::icmp(flow).into_iter().collect();
    if let Some(rst) = flow.steps.iter().find(|step| step.event.part == Part::Rst) {
        evidence.push(Evidence::seen(
            "RST first seen at",
            evidence::place(rst),
            rst.event.hook,
        ));
    }
    if let End::Dropped(step) = judge::end_of(flow, last) {
        evidence.extend(lost::drop_evidence(step, facts));
    }
    Finding {
        cause: Cause::Unknown,
        explanation: "The client was refused; nothing that tracer knows explains why.".to_owned(),
        evidence,
    }
}

/// The step at which a TCP without a socket for the SYN refused it.
fn no_listener(flow: &Flow, attempt: usize) -> Option<&Step> {
    flow.steps_of(attempt).find(|step| {
        step.event.part == Part::Syn
            && step.event.hook == Hook::TcpSendReset
            && matches!(&step.event.what, What::Socket(socket) if socket.sock == 0)
    })
}

fn finding_no_listener(flow: &Flow, attempt: usize, reset: &Step, facts: &Facts) -> Finding {
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
    if let Some(finding) = ipvs::stale_backend(flow, attempt, facts) {
        evidence.extend(finding.evidence);
        return Finding { evidence, ..finding };
    }
    if let Some(step) = flow
        .steps_of(attempt)
        .find(|step| matches!(step.event.what, What::Drop(_)) && step.event.part == Part::Syn)
    {
        evidence.extend(lost::drop_evidence(step, facts));
    }
    Finding {
        cause: Cause::TcpNoListener,
        explanation: format!(
            "The SYN reached {who} at {target}, but nothing listens there: its TCP answered with RST."
        ),
        evidence,
    }
}

/// The SYN went on and nothing came back, or what came back did not help.
pub(crate) fn silent(flow: &Flow, attempt: usize, facts: &Facts) -> Finding {
    if let Some(finding) = ipvs::stale_backend(flow, attempt, facts) {
        return finding;
    }
    if flow.synacks > 0 {
        return unanswered_by_client(flow);
    }
    if let Some(took) = flow
        .steps_of(attempt)
        .find(|step| step.event.hook == Hook::TcpConnRequest)
    {
        let discarded = flow
            .steps_of(attempt)
            .flat_map(|step| lost::drop_evidence(step, facts));
        return unknown(
            "The backend's listener took the SYN, but no answer left the backend.",
            queue(took).into_iter().chain(discarded),
        );
    }
    if let Some(reset) = no_listener(flow, attempt) {
        return unknown(
            "The backend refused the SYN, but its RST did not leave this node towards the client.",
            Some(Evidence::seen(
                "RST sent by",
                evidence::place(reset),
                reset.event.hook,
            )),
        );
    }
    if let Some(finding) = refused_by_tcp(flow, attempt, facts) {
        return finding;
    }
    match delivery(flow, attempt) {
        Some(delivered) => Finding {
            cause: Cause::BackendSilent,
            explanation: format!(
                "The SYN was handed to the backend {} ({}), and nothing came back.",
                delivered.event.tuple.destination(),
                evidence::place(delivered),
            ),
            evidence: delivery_evidence(flow, attempt, delivered, facts),
        },
        None => unknown(
            "The SYN was seen, but not where it went.",
            last_step(flow, attempt),
        ),
    }
}

/// The backend answered, and the handshake ended no further.
fn unanswered_by_client(flow: &Flow) -> Finding {
    let count = Evidence::seen("SYN-ACKs seen", flow.synacks.to_string(), Hook::DevStartXmit);
    let reset = flow
        .steps
        .iter()
        .find(|step| step.event.part == Part::Rst && step.event.tuple == flow.original);
    match reset {
        Some(step) => unknown(
            "The backend answered, and the client ended the connection with RST instead of taking the answer.",
            [
                count,
                Evidence::seen("RST from the client", evidence::place(step), step.event.hook),
            ],
        ),
        None => unknown(
            "The backend answered, but the client's ACK never came through this node.",
            Some(count),
        ),
    }
}

/// The handshake ended after a repetition, and no SYN was discarded here: was an answer late, or lost elsewhere?
pub(crate) fn late(flow: &Flow, facts: &Facts) -> Finding {
    let Some(answer) = flow.steps.iter().find(|step| step.event.part == Part::SynAck) else {
        return unknown(
            "A SYN was sent again, and the answer was not seen.",
            last_step(flow, 0),
        );
    };
    if answer.attempt == 0 {
        // The first SYN was answered before the client sent it again, or before the SYN-ACK was sent again.
        let left = flow.steps.iter().find(|step| {
            step.event.part == Part::SynAck
                && step.event.hook == Hook::DevStartXmit
                && step.event.tuple == flow.original.reversed()
        });
        let evidence =
            left.map(|step| Evidence::seen("SYN-ACK left by", evidence::place(step), step.event.hook));
        return unknown(
            "The first SYN was answered, but the client's ACK did not come before a packet was sent again: the \
             answer or the ACK was lost or late between here and the client.",
            evidence,
        );
    }
    let took = |attempt| {
        flow.steps_of(attempt)
            .find(|step| step.event.hook == Hook::TcpConnRequest)
    };
    let finding = match (took(0), (1..flow.attempts.len()).find_map(took)) {
        // A SYN that comes again meets the listener anew only if the listener kept nothing of the first one.
        (Some(first), Some(_)) => unknown(
            "The backend's listener took the first SYN but did not answer it; a later one was answered.",
            queue(first),
        ),
        (Some(first), None) => Finding {
            cause: Cause::BackendSlow,
            explanation: "The backend's listener took the first SYN, but its answer came after the client's \
                          retransmission."
                .to_owned(),
            evidence: vec![Evidence::seen(
                "listener took the SYN in",
                evidence::place(first),
                Hook::TcpConnRequest,
            )],
        },
        (None, _) => silent_first(flow, facts),
    };
    with_earlier(flow, finding)
}

fn with_earlier(flow: &Flow, mut finding: Finding) -> Finding {
    finding.evidence.extend(evidence::earlier(flow));
    finding
}

fn unknown(explanation: &str, evidence: impl IntoIterator<Item = Evidence>) -> Finding {
    let evidence = evidence.into_iter().collect();
    Finding {
        cause: Cause::Unknown,
        explanation: explanation.to_owned(),
        evidence,
    }
}

/// How full the listener's accept queue was when it took a SYN.
fn queue(step: &Step) -> Option<Evidence> {
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

/// The first SYN of a stalled flow went on and nothing is known of its end.
fn silent_first(flow: &Flow, facts: &Facts) -> Finding {
    if let Some(finding) = refused_by_tcp(flow, 0, facts) {
        return finding;
    }
    match delivery(flow, 0) {
        Some(delivered) => Finding {
            cause: Cause::BackendSilent,
            explanation: format!(
                "The first SYN was handed to the backend {} and not answered; a later one was.",
                delivered.event.tuple.destination()
            ),
            evidence: delivery_evidence(flow, 0, delivered, facts),
        },
        None => Finding {
            cause: Cause::Unknown,
            explanation: "The first SYN was seen, but not where it went; a later one was answered."
                .to_owned(),
            evidence: last_step(flow, 0).into_iter().collect(),
        },
    }
}

/// The SYN came as far as TCP in the backend's netns, which threw it away: a backend that is not silent at all, for
/// it may have answered with something else than a SYN-ACK (an old socket in `TIME_WAIT` sends an ACK).
fn refused_by_tcp(flow: &Flow, attempt: usize, facts: &Facts) -> Option<Finding> {
    let step = flow.steps_of(attempt).find(|step| {
        step.event.part == Part::Syn
            && matches!(&step.event.what, What::Drop(drop) if facts.symbol(drop.location).is_some_and(is_tcp))
    })?;
    Some(unknown(
        "The backend's TCP threw the SYN away and sent no SYN-ACK.",
        lost::drop_evidence(step, facts),
    ))
}

fn is_tcp(symbol: &str) -> bool {
    symbol.starts_with("tcp_")
}

/// The last step that shows the SYN on its way to the backend: translated, and in the backend's netns or handed to a
/// device of the node.
fn delivery(flow: &Flow, attempt: usize) -> Option<&Step> {
    let translated = |step: &&Step| step.event.part == Part::Syn && step.event.tuple != flow.original;
    let arrived = flow
        .steps_of(attempt)
        .filter(translated)
        .rfind(|step| !flow.is_on_node(&step.event) && step.event.hook == Hook::NetifReceive);
    arrived.or_else(|| {
        flow.steps_of(attempt)
            .filter(translated)
            .rfind(|step| step.event.hook == Hook::DevStartXmit)
    })
}

fn delivery_evidence(flow: &Flow, attempt: usize, delivered: &Step, facts: &Facts) -> Vec<Evidence> {
    let mut out = vec![
        Evidence::seen(
            "SYN delivered to",
            evidence::place(delivered),
            delivered.event.hook,
        ),
        Evidence::seen("SYNs sent", flow.attempts.len().to_string(), Hook::NetifReceive),
        Evidence::seen("SYN-ACKs seen", flow.synacks.to_string(), Hook::DevStartXmit),
    ];
    // Discarded in the pod's own netns: no longer this node's doing, but worth knowing.
    for step in flow
        .steps_of(attempt)
        .filter(|step| !flow.is_on_node(&step.event))
    {
        out.extend(lost::drop_evidence(step, facts));
    }
    if let Some(old) = ipvs::Decision::of(flow, attempt).reused()
        && attempt == 0
    {
        out.extend(evidence::old_entry(old));
    }
    out
}

fn last_step(flow: &Flow, attempt: usize) -> Option<Evidence> {
    let step = flow.steps_of(attempt).next_back()?;
    Some(Evidence::seen(
        "last seen at",
        evidence::place(step),
        step.event.hook,
    ))
}
