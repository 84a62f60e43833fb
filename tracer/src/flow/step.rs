//! The parts of a flow: steps, attempts, and the flow before it.

use std::net::SocketAddr;

use tracer_common::hook::Hook;

use super::fate::Fate;
use crate::decode::event::Event;

/// A time shorter than any retransmission timeout of a SYN or SYN-ACK, in nanoseconds: RFC 6298 requires a second, and Windows
/// can be set to 300 ms. Anything earlier after the last one is a copy that the network made, or the backend's answer to a copy.
pub(super) const RETRANSMIT_NS: u64 = 250_000_000;

/// One thing that the kernel did with a packet of the flow.
#[derive(Clone, Debug)]
pub struct Step {
    /// The event.
    pub event: Event,
    /// The SYN that it belongs to: index into [`Flow::attempts`].
    pub attempt: usize,
    /// The function's return value, once it has returned.
    pub verdict: Option<i32>,
    /// Network namespace in which it happened. Inside TCP a packet has no device; there it is where the packet was last
    /// seen.
    pub netns: u32,
    /// The kernel skipped the probes that follow, until the packet was next queued.
    pub probes_skipped: bool,
}

/// One SYN on the wire.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was first seen, nanoseconds of the kernel's monotonic clock.
    pub time_ns: u64,
    /// Address of its `sk_buff`.
    pub skb: u64,
    /// The client did not send it: the network duplicated the SYN before it.
    pub is_copy: bool,
    /// All hooks were attached from then on until its end was known. If not, what was not seen may have happened.
    pub is_watched: bool,
}

/// Where a packet was first seen. Each time it is seen there counts as one transmission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    hook: Hook,
    netns: u32,
    ifindex: u32,
}

impl Place {
    pub(super) fn of(event: &Event) -> Self {
        Self {
            hook: event.hook,
            netns: event.netns,
            ifindex: event.ifindex,
        }
    }

    /// Whether it is at this hook.
    pub(super) fn is_at(self, hook: Hook) -> bool {
        self.hook == hook
    }
}

/// The previous flow from the same client port, to detect port reuse.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// Its number.
    pub id: u64,
    /// When its first SYN was seen, monotonic nanoseconds.
    pub start_ns: u64,
    /// The outcome.
    pub fate: Fate,
    /// The real server or pod that it went to.
    pub backend: Option<SocketAddr>,
}
