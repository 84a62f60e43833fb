//! No known cause explains it: `unknown`, with what is known.

use std::net::SocketAddr;

use tracer_common::{hook::Hook, tcp::Part, uapi::verdict};

use super::{
    backend, bpf,
    case::{Case, Proof, Situation},
    cause::Cause,
    evidence::{self, Evidence, Key},
    row::{Absence, Group, Light, Row},
    rule, stack,
    tcp::{self, timewait},
};
use crate::{
    decode::event::Payload,
    flow::model::{Flow, Step, backend_in},
};

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::Unknown,
    group: Group::Unknown,
    summary: "tracer could not identify the cause. The evidence is listed.",
    proof: "No other cause was proven.",
    advice: None,
    scope: "Everywhere.",
    hooks: &[],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: |case| match case.situation {
        Situation::Dropped => Some(dropped(case)),
        Situation::Refused => Some(refused(case)),
        Situation::Silent => Some(silent(case)),
        Situation::Late => Some(late(case)),
        Situation::Established => None,
    },
}];

/// The proof where this node dropped the packet: function and drop reason.
fn dropped(case: &Case<'_>) -> Proof {
    let (mut evidence, place) = match case.dropped {
        Some(step) => (
            evidence::dropped(step, case.facts),
            format!(" in {}", evidence::location(step, case.facts)),
        ),
        None => (Vec::new(), String::new()),
    };
    let verdicts = case.steps().filter(|step| {
        let hook = step.event.hook;
        step.verdict.is_some_and(verdict::is_drop) && (hook.gives_own_verdict() || hook.evaluates_rules())
    });
    evidence.extend(verdicts.map(|step| Evidence::seen(Key::Verdict, "NF_DROP", step.event.hook)));
    evidence.extend(stack::evidence(case));
    evidence.extend(rule::suspects(case));
    evidence.extend(bpf::candidates(case));
    Proof::new(
        format!(
            "This node dropped the {}{place}, for a reason tracer could not identify.",
            case.dropped_packet()
        ),
        evidence,
    )
}

/// The proof where RST or ICMP went back to the client: its sender.
fn refused(case: &Case<'_>) -> Proof {
    let mut evidence: Vec<_> = evidence::icmp(case.flow).into_iter().collect();
    if let Some(rst) = case.flow.steps.iter().find(|step| step.event.part == Part::Rst) {
        evidence.push(Evidence::seen(
            Key::RstFirstSeenAt,
            evidence::place(rst),
            rst.event.hook,
        ));
    }
    let sent_by = |reset: &Step| Evidence::seen(Key::RstSentBy, evidence::place(reset), reset.event.hook);
    if let Some(reset) = untranslated_ack(case) {
        evidence.push(sent_by(reset));
        return Proof::new(
            "The backend answered, but the client's ACK was no longer translated: it reached this node's own TCP, which has no socket \
             for it and answered with RST. tracer could not identify why the translation is gone.",
            evidence,
        );
    }
    if let Some((reset, answered)) = ack_to_another(case) {
        evidence.push(sent_by(reset));
        return Proof::new(
            format!(
                "{answered} answered the SYN, but the client's ACK was sent to {}, which had received a copy of the SYN, had no such \
                 connection and answered with RST.",
                reset.event.tuple.destination(),
            ),
            evidence,
        );
    }
    let refused = refused_ack(case.flow);
    evidence.extend(refused.map(sent_by));
    if let Some(step) = case.dropped {
        evidence.extend(evidence::dropped(step, case.facts));
    }
    if let Some(reset) = refused {
        return Proof::new(
            format!(
                "{} answered the SYN, then answered the client's ACK with RST, for a reason tracer could not identify.",
                reset.event.tuple.destination(),
            ),
            evidence,
        );
    }
    Proof::new(
        "The client was refused, for a reason tracer could not identify.",
        evidence,
    )
}

/// The step at which the node's own TCP found no socket for the client's ACK, although the SYN had been translated: the entry is
/// gone (a stray RST of an old connection from the same port removes it).
fn untranslated_ack<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let flow = case.flow;
    let has_answer = flow.synacks > 0 && flow.backend().is_some_and(|backend| backend != flow.node());
    flow.steps.iter().find(|step| {
        let is_reset = matches!(&step.event.payload, Payload::Socket(socket) if socket.sock == 0)
            && step.event.hook == Hook::TcpSendReset;
        has_answer
            && is_reset
            && step.event.part == Part::Ack
            && step.event.tuple == flow.original
            && flow.is_on_node(&step.event)
    })
}

/// The step at which a backend refused the client's ACK because another backend had answered the SYN, and that other one. Two
/// copies of a SYN that IPVS looks up at the same time get one entry each, and one real server each.
fn ack_to_another<'a>(case: &Case<'a>) -> Option<(&'a Step, SocketAddr)> {
    let flow = case.flow;
    let source = |step: &Step| step.event.tuple.source();
    let answered = flow
        .steps
        .iter()
        .filter(|step| step.event.part == Part::SynAck)
        .map(source)
        .find(|&source| source != flow.node())?;
    let reset = flow.steps.iter().find(|step| {
        step.event.hook == Hook::TcpSendReset
            && step.event.part == Part::Ack
            && ![answered, flow.node()].contains(&step.event.tuple.destination())
    })?;
    let refused_by = reset.event.tuple.destination();
    let was_sent_to = |backend| {
        let is_syn = |step: &&Step| step.event.part == Part::Syn;
        let mut syns = flow.steps.iter().filter(is_syn);
        syns.any(|step| backend_in(&step.event) == Some(backend))
    };
    (was_sent_to(answered) && was_sent_to(refused_by)).then_some((reset, answered))
}

/// The step at which the backend that had answered the SYN refused the client's ACK, and was not seen to accept one. One reason
/// leaves no trace: `inet_ehash_insert` of 5.10 lets another CPU find neither handshake nor connection between removing the one
/// and inserting the other (`net/ipv4/inet_hashtables.c`; it inserts the connection first since 6.3).
fn refused_ack(flow: &Flow) -> Option<&Step> {
    let answered = |backend| {
        let mut answers = flow.steps.iter().filter(|step| step.event.part == Part::SynAck);
        answers.any(|step| step.event.tuple.source() == backend)
    };
    flow.steps.iter().find(|step| {
        step.event.hook == Hook::TcpSendReset
            && step.event.part == Part::Ack
            && step.event.tuple.destination() != flow.node()
            && answered(step.event.tuple.destination())
    })
}

/// The proof where the SYN went on and nothing came back, or what came back did not finish the handshake.
fn silent(case: &Case<'_>) -> Proof {
    let flow = case.flow;
    if flow.synacks > 0 {
        return answer_lost(flow);
    }
    if let Some((step, _)) = tcp::dropped_by_listener(case) {
        return Proof::new(
            "The backend's listener dropped the SYN, although none of its queues was full when it processed it.",
            tcp::queue(step),
        );
    }
    if let Some(accepted) = tcp::accepted(flow, case.attempt) {
        let drops = case.steps().flat_map(|step| evidence::dropped(step, case.facts));
        return Proof::new(
            "The backend's listener accepted the SYN, but no answer left the backend.",
            tcp::queue(accepted).into_iter().chain(drops),
        );
    }
    if let Some(reset) = tcp::refusal(flow, case.attempt) {
        return Proof::new(
            "The backend refused the SYN, but its RST did not leave this node towards the client.",
            [Evidence::seen(
                Key::RstSentBy,
                evidence::place(reset),
                reset.event.hook,
            )],
        );
    }
    if let Some(step) = timewait::at_socket(case) {
        return Proof::new(
            "The backend still holds a closed connection from the same address and port, whose socket received the SYN; no SYN-ACK came.",
            [Evidence::seen(
                Key::EndedConnection,
                evidence::place(step),
                step.event.hook,
            )],
        );
    }
    if let Some(step) = tcp::dropped_by_tcp(case) {
        return Proof::new(
            "The backend's TCP dropped the SYN and sent no SYN-ACK.",
            evidence::dropped(step, case.facts)
                .into_iter()
                .chain(bpf::candidates(case)),
        );
    }
    if let Some(step) = vanished(case) {
        return Proof::new(
            format!(
                "The SYN came into the backend's network namespace ({}), and no hook saw it after that. {UNSEEN_DROP}",
                evidence::place(step)
            ),
            [delivered_to(step)],
        );
    }
    if let Some(step) = left_unmodified(case) {
        return Proof::new(
            format!(
                "The SYN left this node unmodified, {}, and nothing came back through this node.",
                how_sent(case)
            ),
            [left_by(step)],
        );
    }
    Proof::new("The SYN was seen, but not where it went.", last_step(case))
}

/// The explanations that remain on a kernel that does not show TCP's drops.
const UNSEEN_DROP: &str = "Either the backend still has a connection from the same address and port, whose socket dropped the SYN: \
                           this kernel does not show such drops. Or something else in that namespace dropped it.";

/// The step at which the SYN came into the backend's netns, if nothing more was seen of it although TCP may have dropped it.
fn vanished<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let step = case
        .delivery()
        .filter(|step| step.event.hook == Hook::NetifReceive)?;
    backend::may_have_met_a_connection(case, step).then_some(step)
}

fn delivered_to(step: &Step) -> Evidence {
    Evidence::seen(Key::SynDeliveredTo, evidence::place(step), step.event.hook)
}

/// The last step at which the SYN was handed to a device of this node with its original addresses. Its receiver may answer the
/// client directly: silence here proves nothing.
fn left_unmodified<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let flow = case.flow;
    case.steps().rfind(|step| {
        step.event.part == Part::Syn
            && step.event.hook == Hook::DevStartXmit
            && step.event.tuple == flow.original
            && flow.is_on_node(&step.event)
    })
}

fn left_by(step: &Step) -> Evidence {
    Evidence::seen(Key::SynLeftBy, evidence::place(step), step.event.hook)
}

/// The way the SYN left, as part of a sentence.
fn how_sent(case: &Case<'_>) -> &'static str {
    if case.decision().sent_with.is_some() {
        "to the real server that IPVS chose"
    } else {
        "routed and not translated"
    }
}

/// The proof where the backend answered, and its answer was not seen to go out to the client.
fn answer_lost(flow: &Flow) -> Proof {
    let last = flow
        .steps
        .iter()
        .rfind(|step| step.event.part == Part::SynAck)
        .map(|step| Evidence::seen(Key::SynAckLastSeenAt, evidence::place(step), step.event.hook));
    let count = Evidence::seen(Key::SynAcksSeen, flow.synacks.to_string(), Hook::DevStartXmit);
    Proof::new(
        "The backend answered, but its SYN-ACK was not seen to go out to the client.",
        std::iter::once(count).chain(last),
    )
}

/// The proof where a SYN or SYN-ACK was retransmitted, and neither was dropped here.
fn late(case: &Case<'_>) -> Proof {
    let flow = case.flow;
    if flow.answered_attempt().is_none() {
        return Proof::new(
            "A SYN was retransmitted, and the answer was not seen.",
            last_step(case),
        );
    }
    let retransmission = flow.retransmission_after_ns(case.attempt);
    if retransmission
        .zip(flow.established_ns)
        .is_some_and(|(retransmission, ack)| ack < retransmission)
    {
        return Proof::new(
            "The client's ACK came in, but the backend retransmitted its SYN-ACK: the ACK was lost on the path to the backend, late, \
             or not accepted.",
            last_step(case),
        );
    }
    if flow.is_answered(case.attempt) {
        return answer_lost(flow);
    }
    let syn = case.numbered_syn();
    if !flow.is_answered_later(case.attempt) {
        return Proof::new(
            format!("An earlier SYN had been answered; the {syn} was not."),
            last_step(case),
        );
    }
    let mut proof = if let Some((step, _)) = tcp::dropped_by_listener(case) {
        Proof::new(
            format!(
                "The backend's listener dropped the {syn}, although none of its queues was full when it processed it; a later one \
                 was answered."
            ),
            tcp::queue(step),
        )
    } else if let Some(at_listener) = tcp::at_listener(flow, case.attempt) {
        Proof::new(
            format!(
                "The backend's listener accepted the {syn} but did not answer it; a later one was answered."
            ),
            tcp::queue(at_listener),
        )
    } else if let Some(step) = tcp::dropped_by_tcp(case) {
        Proof::new(
            format!("The backend's TCP dropped the {syn} and sent no SYN-ACK; a later one was answered."),
            evidence::dropped(step, case.facts),
        )
    } else if let Some(step) = vanished(case) {
        Proof::new(
            format!(
                "The {} came into the backend's network namespace ({}), and no hook saw it after that; a later one was \
                 answered. {UNSEEN_DROP}",
                case.numbered_syn(),
                evidence::place(step)
            ),
            [delivered_to(step)],
        )
    } else if let Some(step) = left_unmodified(case) {
        Proof::new(
            format!(
                "The {syn} left this node unmodified, {}, and was not answered; a later one was.",
                how_sent(case)
            ),
            [left_by(step)],
        )
    } else {
        Proof::new(
            format!("The {syn} was seen, but not where it went; a later one was answered."),
            last_step(case),
        )
    };
    proof.evidence.extend(evidence::earlier(flow));
    proof
}

fn last_step(case: &Case<'_>) -> Option<Evidence> {
    let step = case.steps().next_back()?;
    Some(Evidence::seen(
        Key::LastSeenAt,
        evidence::place(step),
        step.event.hook,
    ))
}
