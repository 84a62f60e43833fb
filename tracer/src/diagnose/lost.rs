//! Nothing known explains it: `unknown`, with what is known.

use std::net::SocketAddr;

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    rule, stack, tcp, timewait,
};
use crate::{
    decode::event::Payload,
    flow::model::{Flow, Step, backend_in},
};

const NF_DROP: i32 = 0;

pub(super) const ROWS: &[Row] = &[Row {
    cause: Cause::Unknown,
    says: "Nothing that tracer knows explains what became of the packet; what was seen of it is given.",
    proof: "No other cause was proven.",
    advice: None,
    occurs: "Everywhere.",
    hooks: &[],
    find: |case| {
        Some(match case.situation {
            Situation::Dropped => discarded(case),
            Situation::Refused => refused(case),
            Situation::Silent => silent(case),
            Situation::Late => late(case),
        })
    },
}];

/// This node discarded the packet: function and reason are given.
fn discarded(case: &Case<'_>) -> Proof {
    let (mut evidence, place) = match case.discarded {
        Some(step) => (
            evidence::discarded(step, case.facts),
            format!(" in {}", evidence::location(step, case.facts)),
        ),
        None => (Vec::new(), String::new()),
    };
    let refusals = case.steps().filter(|step| {
        let hook = step.event.hook;
        step.verdict == Some(NF_DROP)
            && (hook.is_ipvs_request()
                || matches!(hook, Hook::CtConfirm | Hook::NftDoChain | Hook::IptDoTable))
    });
    evidence.extend(refusals.map(|step| Evidence::seen("verdict", "NF_DROP", step.event.hook)));
    evidence.extend(stack::evidence(case));
    evidence.extend(rule::suspects(case));
    Proof {
        explanation: format!(
            "This node discarded the {}{place}; nothing that tracer knows explains why.",
            case.discarded_packet()
        ),
        evidence,
    }
}

/// RST or ICMP went back to the client: who sent it is given.
fn refused(case: &Case<'_>) -> Proof {
    let mut evidence: Vec<_> = evidence::icmp(case.flow).into_iter().collect();
    if let Some(rst) = case.flow.steps.iter().find(|step| step.event.part == Part::Rst) {
        evidence.push(Evidence::seen(
            "RST first seen at",
            evidence::place(rst),
            rst.event.hook,
        ));
    }
    if let Some(reset) = untranslated_ack(case) {
        evidence.push(Evidence::seen(
            "RST sent by",
            evidence::place(reset),
            reset.event.hook,
        ));
        return words(
            "The backend answered, but the client's ACK was not translated any more: it came to this node's own TCP, which \
             has no socket for it and answered with RST. Why the translation was forgotten is not known.",
            evidence,
        );
    }
    if let Some((reset, answered)) = ack_to_another(case) {
        evidence.push(Evidence::seen(
            "RST sent by",
            evidence::place(reset),
            reset.event.hook,
        ));
        return words(
            &format!(
                "{answered} answered the SYN, but the client's ACK was sent to {}, which had got a copy of the SYN too, knew \
                 nothing of a connection and answered with RST.",
                reset.event.tuple.destination(),
            ),
            evidence,
        );
    }
    let refused = refused_ack(case.flow);
    if let Some(reset) = refused {
        evidence.push(Evidence::seen(
            "RST sent by",
            evidence::place(reset),
            reset.event.hook,
        ));
    }
    if let Some(step) = case.discarded {
        evidence.extend(evidence::discarded(step, case.facts));
    }
    if let Some(reset) = refused {
        return words(
            &format!(
                "{} answered the SYN, but the client's ACK with RST: that it took an ACK was not seen. Why is not known.",
                reset.event.tuple.destination(),
            ),
            evidence,
        );
    }
    words(
        "The client was refused; nothing that tracer knows explains why.",
        evidence,
    )
}

/// The step at which the node's own TCP found no socket for the client's ACK, although the SYN had been translated: the
/// entry that did it is gone (an RST that an older connection from the same port left on the way takes it away).
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

/// The step at which a backend refused the client's ACK because another one had answered the SYN, and which one: two
/// copies of a SYN that are looked up at the same time get an entry of IPVS each, and each a real server.
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

/// The step at which the backend that had answered the SYN refused the client's ACK, and was not seen to have taken one. One
/// way to it that leaves no trace: between taking a handshake out of its table and putting the connection in, `inet_ehash_insert` of 5.10 lets another CPU
/// find neither (`net/ipv4/inet_hashtables.c`; it puts the connection in first since 6.3).
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

/// The SYN went on and nothing came back, or what came back did not help.
fn silent(case: &Case<'_>) -> Proof {
    let flow = case.flow;
    if flow.synacks > 0 {
        return answer_lost(flow);
    }
    if let Some((step, _)) = tcp::thrown_away_by_listener(case) {
        return words(
            "The backend's listener threw the SYN away, although none of its queues was full when it was asked.",
            tcp::queue(step),
        );
    }
    if let Some(took) = tcp::kept(flow, case.attempt) {
        let discarded = case
            .steps()
            .flat_map(|step| evidence::discarded(step, case.facts));
        return words(
            "The backend's listener took the SYN, but no answer left the backend.",
            tcp::queue(took).into_iter().chain(discarded),
        );
    }
    if let Some(reset) = tcp::refusal(flow, case.attempt) {
        return words(
            "The backend refused the SYN, but its RST did not leave this node towards the client.",
            [Evidence::seen(
                "RST sent by",
                evidence::place(reset),
                reset.event.hook,
            )],
        );
    }
    if let Some(step) = timewait::met(case) {
        return words(
            "The backend still has an ended connection from the same address and port, which met the SYN; no SYN-ACK came.",
            [Evidence::seen(
                "ended connection in the backend",
                evidence::place(step),
                step.event.hook,
            )],
        );
    }
    if let Some(step) = tcp::thrown_away(case) {
        return words(
            "The backend's TCP threw the SYN away and sent no SYN-ACK.",
            evidence::discarded(step, case.facts),
        );
    }
    if let Some(step) = left_as_it_came(case) {
        return words(
            &format!(
                "The SYN left this node as the client had sent it, {}, and nothing came back this way.",
                ways_on(case)
            ),
            [Evidence::seen(
                "SYN left by",
                evidence::place(step),
                step.event.hook,
            )],
        );
    }
    words("The SYN was seen, but not where it went.", last_step(case))
}

/// The last step at which the SYN was handed to a device of this node with the addresses that the client gave it. Who takes
/// it may answer the client by another way: no answer here proves nothing.
fn left_as_it_came<'a>(case: &Case<'a>) -> Option<&'a Step> {
    let flow = case.flow;
    case.steps().rfind(|step| {
        step.event.part == Part::Syn
            && step.event.hook == Hook::DevStartXmit
            && step.event.tuple == flow.original
            && flow.is_on_node(&step.event)
    })
}

/// Who sent it on.
fn ways_on(case: &Case<'_>) -> &'static str {
    if case.decision().sent_with.is_some() {
        "to the real server that IPVS chose"
    } else {
        "routed and not translated"
    }
}

/// The backend answered, and its answer was not seen to go out to the client.
fn answer_lost(flow: &Flow) -> Proof {
    let last = flow
        .steps
        .iter()
        .rfind(|step| step.event.part == Part::SynAck)
        .map(|step| Evidence::seen("SYN-ACK last seen at", evidence::place(step), step.event.hook));
    let count = Evidence::seen("SYN-ACKs seen", flow.synacks.to_string(), Hook::DevStartXmit);
    words(
        "The backend answered, but its SYN-ACK was not seen to go out to the client.",
        std::iter::once(count).chain(last),
    )
}

/// The handshake ended after a repetition, and no SYN was discarded here.
fn late(case: &Case<'_>) -> Proof {
    let flow = case.flow;
    let Some(answered) = flow.answered_attempt() else {
        return words(
            "A SYN was sent again, and the answer was not seen.",
            last_step(case),
        );
    };
    let again = flow.first_retransmission_ns();
    if again
        .zip(flow.established_ns)
        .is_some_and(|(again, ack)| ack < again)
    {
        return words(
            "The client's ACK came in, and the backend sent its SYN-ACK again all the same: the ACK was lost between here and \
             there, or late, or not taken.",
            last_step(case),
        );
    }
    if answered == 0 {
        return answer_lost(flow);
    }
    let proof = if let Some((step, _)) = tcp::thrown_away_by_listener(case) {
        words(
            "The backend's listener threw the first SYN away, although none of its queues was full when it was asked; a \
             later one was answered.",
            tcp::queue(step),
        )
    } else if let Some(took) = tcp::taken(flow, 0) {
        words(
            "The backend's listener took the first SYN but did not answer it; a later one was answered.",
            tcp::queue(took),
        )
    } else if let Some(step) = tcp::thrown_away(case) {
        words(
            "The backend's TCP threw the first SYN away and sent no SYN-ACK; a later one was answered.",
            evidence::discarded(step, case.facts),
        )
    } else if let Some(step) = left_as_it_came(case) {
        words(
            &format!(
                "The first SYN left this node as the client had sent it, {}, and was not answered; a later one was.",
                ways_on(case)
            ),
            [Evidence::seen(
                "SYN left by",
                evidence::place(step),
                step.event.hook,
            )],
        )
    } else {
        words(
            "The first SYN was seen, but not where it went; a later one was answered.",
            last_step(case),
        )
    };
    Proof {
        evidence: proof
            .evidence
            .into_iter()
            .chain(evidence::earlier(flow))
            .collect(),
        ..proof
    }
}

fn words(explanation: &str, evidence: impl IntoIterator<Item = Evidence>) -> Proof {
    Proof {
        explanation: explanation.to_owned(),
        evidence: evidence.into_iter().collect(),
    }
}

fn last_step(case: &Case<'_>) -> Option<Evidence> {
    let step = case.steps().next_back()?;
    Some(Evidence::seen(
        "last seen at",
        evidence::place(step),
        step.event.hook,
    ))
}
