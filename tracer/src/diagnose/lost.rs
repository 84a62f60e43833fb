//! Nothing known explains it: `unknown`, with what is known.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    case::{Case, Proof, Situation},
    catalogue::Row,
    cause::Cause,
    evidence::{self, Evidence},
    tcp,
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
    if let Some(step) = case.discarded {
        evidence.extend(evidence::discarded(step, case.facts));
    }
    words(
        "The client was refused; nothing that tracer knows explains why.",
        evidence,
    )
}

/// The SYN went on and nothing came back, or what came back did not help.
fn silent(case: &Case<'_>) -> Proof {
    let flow = case.flow;
    if flow.synacks > 0 {
        return unanswered_by_client(case);
    }
    if let Some(took) = tcp::taken(flow, case.attempt) {
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
    if let Some(step) = tcp::thrown_away(case) {
        return words(
            "The backend's TCP threw the SYN away and sent no SYN-ACK.",
            evidence::discarded(step, case.facts),
        );
    }
    words("The SYN was seen, but not where it went.", last_step(case))
}

/// The backend answered, and the handshake ended no further.
fn unanswered_by_client(case: &Case<'_>) -> Proof {
    let flow = case.flow;
    let count = Evidence::seen("SYN-ACKs seen", flow.synacks.to_string(), Hook::DevStartXmit);
    let reset = flow
        .steps
        .iter()
        .find(|step| step.event.part == Part::Rst && step.event.tuple == flow.original);
    match reset {
        Some(step) => words(
            "The backend answered, and the client ended the connection with RST instead of taking the answer.",
            [
                count,
                Evidence::seen("RST from the client", evidence::place(step), step.event.hook),
            ],
        ),
        None => words(
            "The backend answered, but the client's ACK never came through this node.",
            [count],
        ),
    }
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
    if answered == 0 {
        // The first SYN was answered before the client sent it again, or before the SYN-ACK was sent again.
        let left = flow.steps.iter().find(|step| {
            step.event.part == Part::SynAck
                && step.event.hook == Hook::DevStartXmit
                && step.event.tuple == flow.original.reversed()
        });
        return words(
            "The first SYN was answered, but the client's ACK did not come before a packet was sent again: the answer \
             or the ACK was lost or late between here and the client.",
            left.map(|step| Evidence::seen("SYN-ACK left by", evidence::place(step), step.event.hook)),
        );
    }
    let proof = if let Some(took) = tcp::taken(flow, 0) {
        words(
            "The backend's listener took the first SYN but did not answer it; a later one was answered.",
            tcp::queue(took),
        )
    } else if let Some(step) = tcp::thrown_away(case) {
        words(
            "The backend's TCP threw the first SYN away and sent no SYN-ACK; a later one was answered.",
            evidence::discarded(step, case.facts),
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
