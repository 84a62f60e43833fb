//! What looks wrong with a flow before its fate is known: the reasons to watch it with more hooks.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
};

use tracer_common::{hook::Hook, tcp::Part};

use super::model::Flow;
use crate::decode::event::{Event, Payload};

/// How long a SYN may be unanswered, nanoseconds. The hooks must be attached before its retransmission, a second after it.
pub(super) const ANSWER_NS: u64 = 200_000_000;
/// The most SYNs whose answer is awaited. Under a flood the oldest are not checked.
const MOST_AWAITED: usize = 65_536;
/// The most suspicions that are kept until they are taken.
const MOST_FOUND: usize = 1024;

/// What looked wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Sign {
    /// No SYN-ACK came in time.
    NoAnswer,
    /// A SYN was retransmitted.
    Retransmission,
    /// A SYN-ACK was retransmitted.
    AnswerRepeated,
    /// The kernel freed a packet of the handshake at this return address.
    Drop(u64),
    /// A RST was sent or received.
    Reset,
    /// An ICMP error was sent.
    IcmpError,
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAnswer => "a SYN was not answered in time",
            Self::Retransmission => "a SYN was retransmitted",
            Self::AnswerRepeated => "a SYN-ACK was retransmitted",
            Self::Drop(_) => "a packet was dropped",
            Self::Reset => "a connection was reset",
            Self::IcmpError => "an ICMP error was sent",
        })
    }
}

/// A reason to look closer at a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Suspicion {
    /// The port of the service.
    pub port: u16,
    /// What looked wrong.
    pub sign: Sign,
}

/// Collects what looks wrong.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// SYNs in the order in which they came: monotonic nanoseconds, the kernel's number of the flow, and which of its SYNs.
    awaited: VecDeque<(u64, u64, usize)>,
    found: BTreeSet<Suspicion>,
}

impl Suspicions {
    /// Takes a flow into account after an event was added to it. `syns_before` is the number of its SYNs before that.
    pub(super) fn observe(
        &mut self,
        number: u64,
        flow: &Flow,
        syns_before: usize,
        synacks_before: u32,
        sign: Option<Sign>,
    ) {
        let port = flow.node().port();
        let mut add = |sign| {
            if self.found.len() < MOST_FOUND {
                self.found.insert(Suspicion { port, sign });
            }
        };
        if let Some(sign) = sign {
            add(sign);
        }
        if flow.synacks > synacks_before && flow.synacks as usize > flow.attempts.len() {
            add(Sign::AnswerRepeated);
        }
        let newest = flow.attempts.len();
        if newest > syns_before && flow.attempts.last().is_some_and(|newest| !newest.is_copy) {
            if newest > 1 {
                add(Sign::Retransmission);
            }
            self.awaited
                .push_back((flow.last_syn_ns(), number, newest.saturating_sub(1)));
            if self.awaited.len() > MOST_AWAITED {
                self.awaited.pop_front();
            }
        }
    }

    /// Checks the SYNs whose answer is overdue at `now_ns`, and returns what looks wrong since the last call. `flow` returns
    /// a flow by the kernel's number.
    pub(super) fn take<'a>(
        &mut self,
        now_ns: u64,
        flow: impl Fn(u64) -> Option<&'a Flow>,
    ) -> BTreeSet<Suspicion> {
        while let Some(&(time_ns, number, attempt)) = self.awaited.front()
            && time_ns.saturating_add(ANSWER_NS) <= now_ns
        {
            self.awaited.pop_front();
            if let Some(flow) = flow(number)
                && is_unanswered(flow, attempt)
            {
                self.found.insert(Suspicion {
                    port: flow.node().port(),
                    sign: Sign::NoAnswer,
                });
            }
        }
        std::mem::take(&mut self.found)
    }
}

/// Whether neither a SYN-ACK nor anything else ended the wait for one.
fn is_unanswered(flow: &Flow, attempt: usize) -> bool {
    let is_over = flow.established_ns.is_some() || flow.refused_ns.is_some();
    !is_over && flow.attempts.len() == attempt + 1 && !flow.is_answered(attempt)
}

/// What this event shows by itself.
pub(super) fn sign_of(event: &Event) -> Option<Sign> {
    match (&event.payload, event.hook) {
        (Payload::Drop(drop), _) => Some(Sign::Drop(drop.location)),
        (Payload::Icmp(_), _) => Some(Sign::IcmpError),
        (_, Hook::TcpSendReset | Hook::TcpReceiveReset) => Some(Sign::Reset),
        _ if event.part == Part::Rst => Some(Sign::Reset),
        _ => None,
    }
}
