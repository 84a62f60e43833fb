//! What became of a flow.

use tracer_common::{hook::Hook, tcp::Part};

use super::{
    event::What,
    model::{Flow, Step},
};

/// The closed list of fates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// The handshake ended and nothing had to be sent again.
    Established,
    /// The handshake ended, but only after a SYN or SYN-ACK was sent again.
    Stalled,
    /// This node discarded the SYN or the SYN-ACK.
    Dropped,
    /// RST or ICMP unreachable went back to the client.
    Refused,
    /// The SYN went on towards the backend and nothing came back.
    Unanswered,
    /// Not decided yet.
    Pending,
}

impl Fate {
    /// The name that users and files see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Stalled => "stalled",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Pending => "pending",
        }
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How one SYN, or what answered it, ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'flow> {
    /// A SYN-ACK was seen and not discarded on this node.
    Answered,
    /// This node discarded the SYN or the SYN-ACK; the step at which it did.
    Dropped(&'flow Step),
    /// Nothing that this node saw ended it.
    Open,
}

/// The fate of a flow of which no more is expected.
#[must_use]
pub fn of(flow: &Flow) -> Fate {
    if flow.established_ns.is_some() {
        return if flow.stall_ns().is_some() {
            Fate::Stalled
        } else {
            Fate::Established
        };
    }
    if flow.refused_ns.is_some() {
        return Fate::Refused;
    }
    match flow.attempts.len().checked_sub(1).map(|last| end_of(flow, last)) {
        Some(End::Dropped(_)) => Fate::Dropped,
        _ => Fate::Unanswered,
    }
}

/// How one SYN ended.
///
/// A discarded packet is the end only if the same way shows nothing after it: a tap's copy may be thrown away while
/// the packet itself goes on.
#[must_use]
pub fn end_of(flow: &Flow, attempt: usize) -> End<'_> {
    let mut end = End::Open;
    for step in flow.steps_of(attempt) {
        match (step.event.part, &step.event.what) {
            (Part::Syn | Part::SynAck, What::Drop(_)) if flow.is_on_node(&step.event) => {
                end = End::Dropped(step);
            }
            (Part::SynAck, _) => end = End::Answered,
            (Part::Syn, _) if moves_on(step) => end = End::Open,
            _ => {}
        }
    }
    end
}

/// Does this step show that the packet still lives?
fn moves_on(step: &Step) -> bool {
    matches!(
        step.event.hook,
        Hook::DevStartXmit | Hook::NetifReceive | Hook::TcpConnRequest | Hook::IpvsNatXmit
    )
}
