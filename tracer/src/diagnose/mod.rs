//! Why a flow ended as it did: from its steps and the node's facts to a cause, with the evidence that proves it.
//!
//! Pure, like [`crate::flow`]. A cause is given only if what the kernel was seen to do leaves no other; what is left
//! is [`cause::Cause::Unknown`] with what is known. No rule asks for the kernel's version.

mod backend;
pub mod cause;
pub mod evidence;
mod ipvs;
mod lost;

use tracer_common::hook::Hook;

use self::{cause::Cause, evidence::Evidence};
use crate::{
    flow::{
        event::What,
        fate::Fate,
        judge::{self, End},
        model::Flow,
    },
    node::facts::Facts,
};

/// Who translated the NodePort to a backend. NAT by rules is not told yet whether it was iptables or nf_tables that
/// held them, so it is left open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataplane {
    /// IPVS.
    Ipvs,
    /// Nobody: a socket on the node itself.
    Local,
}

impl Dataplane {
    /// The name that users see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Local => "local",
        }
    }
}

/// What can be said about a flow.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Why; `None` where nothing went wrong or nothing is decided.
    pub cause: Option<Cause>,
    /// What happened, in one or two sentences about this flow.
    pub explanation: String,
    /// What to do about it.
    pub advice: Option<&'static str>,
    /// What proves it.
    pub evidence: Vec<Evidence>,
    /// Who did the DNAT; `None` if that was not seen.
    pub dataplane: Option<Dataplane>,
}

/// A verdict of one rule of the diagnosis.
pub(crate) struct Finding {
    pub(crate) cause: Cause,
    pub(crate) explanation: String,
    pub(crate) evidence: Vec<Evidence>,
}

/// Explains a flow.
#[must_use]
pub fn diagnose(flow: &Flow, fate: Fate, facts: &Facts) -> Diagnosis {
    let finding = match fate {
        Fate::Established | Fate::Pending => None,
        Fate::Stalled => Some(stalled(flow, facts)),
        Fate::Dropped | Fate::Unanswered => Some(unfinished(flow, facts)),
        Fate::Refused => Some(backend::refused(flow, facts)),
    };
    let finding = finding
        .map(|finding| doubt(flow, finding, facts))
        .map(|finding| of_family(flow, finding));
    let dataplane = dataplane(flow);
    match finding {
        Some(Finding {
            cause,
            explanation,
            evidence,
        }) => Diagnosis {
            cause: Some(cause),
            explanation,
            advice: cause.advice(),
            evidence,
            dataplane,
        },
        None => Diagnosis {
            cause: None,
            explanation: match fate {
                Fate::Established => "The handshake finished at the first try.".to_owned(),
                _ => "The handshake is still going on.".to_owned(),
            },
            advice: None,
            evidence: Vec::new(),
            dataplane,
        },
    }
}

/// The rules of the diagnosis name hooks by their role; people get the name of the function that was hooked.
fn of_family(flow: &Flow, mut finding: Finding) -> Finding {
    if flow.original.is_v6() {
        finding.evidence = finding.evidence.into_iter().map(Evidence::of_ipv6).collect();
    }
    finding
}

/// Records were lost while the flow went on: what was not seen proves nothing then, and the flow says so.
fn doubt(flow: &Flow, mut finding: Finding, facts: &Facts) -> Finding {
    if facts.lost_ns.is_none_or(|lost| lost < flow.start_ns()) {
        return finding;
    }
    if matches!(finding.cause, Cause::BackendSilent | Cause::BackendSlow) {
        finding.cause = Cause::Unknown;
    }
    finding
        .explanation
        .push_str(" Records were lost meanwhile, so this may be incomplete.");
    finding.evidence.push(Evidence::read(
        "records lost",
        "while this flow went on",
        "ring buffer",
    ));
    finding
}

/// The handshake ended after a repetition: what became of the SYN that was lost?
fn stalled(flow: &Flow, facts: &Facts) -> Finding {
    let answered = flow.answered_attempt().unwrap_or(flow.attempts.len());
    let dropped = (0..flow.attempts.len().min(answered.max(1)))
        .find(|&attempt| matches!(judge::end_of(flow, attempt), End::Dropped(_)));
    match dropped {
        Some(attempt) => attempt_dropped(flow, attempt, facts),
        None => backend::late(flow, facts),
    }
}

/// The handshake did not end: the last SYN tells.
fn unfinished(flow: &Flow, facts: &Facts) -> Finding {
    let last = flow.attempts.len().saturating_sub(1);
    match judge::end_of(flow, last) {
        End::Dropped(_) => attempt_dropped(flow, last, facts),
        End::Answered | End::Open => backend::silent(flow, last, facts),
    }
}

/// This node discarded a SYN (or its answer): which of its parts did, and why?
fn attempt_dropped(flow: &Flow, attempt: usize, facts: &Facts) -> Finding {
    ipvs::dropped(flow, attempt, facts)
        .or_else(|| lost::by_rule(flow, attempt, facts))
        .unwrap_or_else(|| lost::unexplained(flow, attempt, facts))
}

fn dataplane(flow: &Flow) -> Option<Dataplane> {
    if flow.steps.iter().any(|step| {
        matches!(
            step.event.hook,
            Hook::IpvsSchedule | Hook::IpvsNatXmit | Hook::IpvsLeave | Hook::IpvsReply | Hook::IpvsExpireNow
        ) || matches!(&step.event.what, What::IpvsConn(conn) if conn.conn != 0)
    }) {
        return Some(Dataplane::Ipvs);
    }
    let local = flow.steps.iter().any(|step| {
        matches!(step.event.hook, Hook::TcpConnRequest | Hook::TcpSendReset)
            && step.event.netns == flow.netns
            && step.event.tuple == flow.original
    });
    local.then_some(Dataplane::Local)
}
