//! conntrack found no connection for a packet, and a rule that matches INVALID packets dropped it.

use tracer_common::{
    hook::Hook,
    record::{Conntrack, packet_state},
    tcp::Part,
    uapi::verdict,
};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof, Situation},
        cause::Cause,
        evidence::{Evidence, Key},
        row::{Absence, Group, Light, Row},
        rule,
    },
    flow::model::Step,
};

pub(in crate::diagnose) const ROWS: &[Row] = &[Row {
    cause: Cause::ConntrackInvalid,
    group: Group::Conntrack,
    summary: "conntrack marked the packet INVALID, and a rule that matches INVALID packets dropped it.",
    proof: "nf_conntrack_in let the packet pass without a connection (and not as UNTRACKED), which is what INVALID \
            means, or the packet had none when it was freed at the input, forward or postrouting hook; and the rule that dropped \
            this packet matches INVALID packets.",
    advice: Some(
        "Find out why conntrack has no connection for it: its entry was deleted or timed out (`conntrack -E -e DESTROY`), \
         the SYN took another path than the answer, or a checksum or sequence number is wrong \
         (net.netfilter.nf_conntrack_log_invalid=6 makes the kernel log which). net.netfilter.nf_conntrack_tcp_be_liberal=1 \
         helps only with sequence numbers.",
    ),
    scope: "Every kernel and dataplane. The hooks are attached once netfilter has dropped a packet; a later one shows the \
            cause. Where no rule drops it, an INVALID packet goes on untranslated: see return.not-translated.",
    hooks: &[&[Hook::CtIn], &[Hook::NftDoChain, Hook::IptDoTable]],
    absence: Absence::Nothing,
    light: Light::Hidden,
    detect: invalid,
}];

fn invalid(case: &Case<'_>) -> Option<Proof> {
    if case.situation != Situation::Dropped {
        return None;
    }
    let (dropped, culprit) = rule::dropped(case)?;
    if !culprit.known.as_ref()?.matches_invalid {
        return None;
    }
    if !is_invalid(case, dropped, &culprit.evidence) {
        return None;
    }
    let packet = match dropped.event.part {
        Part::SynAck => "SYN-ACK",
        Part::Ack => "client's ACK",
        _ => "SYN",
    };
    let mut evidence = vec![Evidence::seen(
        Key::ConntrackState,
        "INVALID: no connection found",
        Hook::CtIn,
    )];
    let (source, destination) = (dropped.event.tuple.source(), dropped.event.tuple.destination());
    let why = match Halves::of(case, dropped) {
        Some(halves) => {
            evidence.push(halves.evidence());
            halves.explanation()
        }
        None => String::new(),
    };
    let explanation = format!(
        "conntrack found no connection for the {packet} {source} -> {destination} (INVALID), so it was dropped by {}.{why}",
        culprit.words
    );
    Some(Proof {
        blame: Some(culprit.blame),
        ..Proof::new(explanation, evidence.into_iter().chain(culprit.evidence))
    })
}

/// Whether conntrack let the packet pass without a connection: as its hook showed or, where that was not attached yet, because
/// the packet had none when it was freed after that hook.
fn is_invalid(case: &Case<'_>, dropped: &Step, evidence: &[Evidence]) -> bool {
    let of_packet = |step: &&Step| {
        (step.event.skb, step.event.part) == (dropped.event.skb, dropped.event.part)
            && case.flow.is_on_node(&step.event)
    };
    let is_after_tracking = evidence.iter().any(|fact| {
        fact.key == Key::NetfilterHook && ["input", "forward", "postrouting"].contains(&fact.value.as_str())
    });
    case.steps()
        .filter(of_packet)
        .any(|step| match &step.event.payload {
            Payload::Packet => step.event.hook == Hook::CtIn && step.event.time_ns <= dropped.event.time_ns,
            Payload::PacketState(state) => {
                is_after_tracking && state.ct == 0 && state.info != packet_state::UNTRACKED
            }
            _ => false,
        })
}

/// Which half of the handshake conntrack saw.
enum Halves<'a> {
    /// The SYN has an entry, and the packet does not fit it or the entry is gone.
    Both,
    /// The SYN has an entry, which expects another answer.
    OtherAnswer(&'a Conntrack),
    /// The SYN has an entry that waits for its answer: the answer did not come through here.
    Client,
    /// The SYN has no entry: it did not come through here, or was not tracked.
    Backend,
}

impl<'a> Halves<'a> {
    /// The halves that were seen; `None` if that was not watched.
    fn of(case: &Case<'a>, dropped: &Step) -> Option<Self> {
        let flow = case.flow;
        let before = || {
            let steps = flow.steps.iter().filter(|step| flow.is_on_node(&step.event));
            steps.filter(|step| step.event.time_ns <= dropped.event.time_ns)
        };
        let entry = before().rev().find_map(|step| match &step.event.payload {
            Payload::Conntrack(entry)
                if step.event.hook == Hook::CtConfirm && step.verdict == Some(verdict::NF_ACCEPT) =>
            {
                Some(entry)
            }
            _ => None,
        });
        let Some(entry) = entry else {
            let is_watched = !case.facts.absent.contains(&Hook::CtConfirm)
                && case.facts.lost_ns.is_none()
                && !(0..flow.attempts.len()).any(|attempt| flow.has_skipped(attempt));
            return (is_watched && dropped.event.part == Part::SynAck).then_some(Self::Backend);
        };
        if dropped.event.part == Part::SynAck {
            return Some(if entry.reply == dropped.event.tuple {
                Self::Both
            } else {
                Self::OtherAnswer(entry)
            });
        }
        let is_answered = before().any(|step| step.event.part == Part::SynAck);
        Some(if is_answered || case.facts.lost_ns.is_some() {
            Self::Both
        } else {
            Self::Client
        })
    }

    fn explanation(&self) -> String {
        match self {
            Self::Both => " The SYN had an entry: it is gone, or this packet does not fit it.".to_owned(),
            Self::OtherAnswer(entry) => format!(
                " The SYN has an entry, but it expects the answer {} -> {}.",
                entry.reply.source(),
                entry.reply.destination()
            ),
            Self::Client => " conntrack saw only the client's half of the handshake: the SYN has an entry, and the SYN-ACK did \
                             not come through this node."
                .to_owned(),
            Self::Backend => " conntrack saw only the backend's half of the handshake: the SYN has no entry.".to_owned(),
        }
    }

    fn evidence(&self) -> Evidence {
        let value = match self {
            Self::Both => "inserted with the SYN".to_owned(),
            Self::OtherAnswer(entry) => format!(
                "inserted with the SYN, reply {} -> {}",
                entry.reply.source(),
                entry.reply.destination()
            ),
            Self::Client => "inserted with the SYN, no answer seen (UNREPLIED)".to_owned(),
            Self::Backend => "none inserted with the SYN".to_owned(),
        };
        Evidence::seen(Key::SynConntrackEntry, value, Hook::CtConfirm)
    }
}
