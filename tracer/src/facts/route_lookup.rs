//! Route lookups: what the kernel looks up for a packet.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::decode::event::Event;

/// A route lookup of the kernel: everything that tables and policy rules match on, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteLookup {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The destination of the lookup.
    pub to: IpAddr,
    /// Its source.
    pub from: Option<IpAddr>,
    /// Index of the device that the packet came in through; `None` for a packet that the namespace itself sends.
    pub input: Option<u32>,
    /// The mark of the lookup; `None` if unknown.
    pub mark: Option<u32>,
    /// Whether it is the reverse path filter's lookup of the source address (`__fib_validate_source`,
    /// `net/ipv4/fib_frontend.c`): the source of this lookup need not be an address of the namespace.
    pub is_reverse: bool,
}

impl RouteLookup {
    /// The lookup for a packet that came in.
    #[must_use]
    pub fn ahead(netns: u32, event: &Event, mark: Option<u32>) -> Self {
        Self {
            netns,
            to: event.tuple.daddr.ip(),
            from: Some(event.tuple.saddr.ip()),
            input: input(event),
            mark,
            is_reverse: false,
        }
    }

    /// The lookup of the reverse path filter for a packet that came in.
    #[must_use]
    pub fn of_source(netns: u32, event: &Event, mark: Option<u32>) -> Self {
        Self {
            netns,
            to: event.tuple.saddr.ip(),
            from: Some(event.tuple.daddr.ip()),
            input: input(event),
            mark,
            is_reverse: true,
        }
    }

    /// The lookup of a listener for its answer to a SYN.
    #[must_use]
    pub fn of_answer(netns: u32, event: &Event, mark: Option<u32>) -> Self {
        Self {
            netns,
            to: event.tuple.saddr.ip(),
            from: Some(event.tuple.daddr.ip()),
            input: None,
            mark,
            is_reverse: false,
        }
    }

    /// The lookup of IPVS for a real server, which has neither source nor mark (`do_output_route4`,
    /// `net/netfilter/ipvs/ip_vs_xmit.c`, 3.10 to 7.3).
    #[must_use]
    pub const fn of_ipvs(netns: u32, server: IpAddr) -> Self {
        Self {
            netns,
            to: server,
            from: None,
            input: None,
            mark: Some(0),
            is_reverse: false,
        }
    }

    /// The same lookup without a mark.
    #[must_use]
    pub const fn unmarked(self) -> Self {
        Self {
            mark: Some(0),
            ..self
        }
    }
}

fn input(event: &Event) -> Option<u32> {
    Some(event.ifindex).filter(|&index| index != 0)
}
