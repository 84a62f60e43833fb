//! The destinations to which the rules of a network namespace translate.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::{iptables, max_age::MAX_AGE, netns, nft};
use crate::facts::translation::Translation;

/// The translations of a network namespace's rules, and when they were read.
#[derive(Debug)]
pub(super) struct Destinations {
    at: Instant,
    /// The same as monotonic nanoseconds.
    pub(super) at_ns: u64,
    /// How long reading took.
    cost: Duration,
    translations: Vec<Translation>,
}

impl Destinations {
    /// Reading rules takes at most this part of the time: 1/20.
    const SHARE: u32 = 20;

    /// Whether it is time to read them again.
    pub(super) fn is_due(&self) -> bool {
        self.at.elapsed() > MAX_AGE.max(self.cost * Self::SHARE)
    }

    /// Whether a rule can translate a packet to `from` to `backend`.
    pub(super) fn can_lead(&self, from: SocketAddr, backend: SocketAddr) -> bool {
        self.translations.iter().any(|rule| rule.can_lead(from, backend))
    }

    /// Reads the rules of a network namespace. `None` if they cannot be read.
    pub(super) fn read(netns: u32) -> Option<Self> {
        let at = Instant::now();
        let at_ns = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).ok()?;
        let translations = netns::inside(netns, translations).ok()?.ok()?;
        Some(Self {
            at,
            at_ns: u64::try_from(at_ns.as_nanos()).ok()?,
            cost: at.elapsed(),
            translations,
        })
    }
}

/// All translations in the rules of the calling thread's network namespace.
fn translations() -> io::Result<Vec<Translation>> {
    let mut out = Vec::new();
    if nft::is_there() {
        let rules = nft::rules(None, None)?;
        out.extend(rules.into_iter().filter_map(|rule| rule.translation));
    }
    for table in iptables::tables(&["nat"])? {
        out.extend(table.rules().filter_map(|found| found.rule.translation.clone()));
    }
    Ok(out)
}
