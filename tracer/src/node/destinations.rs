//! Where the rules of a network namespace led to when they were read.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::{iptables, netns, nft};
use crate::facts::translation::Translation;

/// See the module.
#[derive(Debug)]
pub(super) struct Destinations {
    at: Instant,
    /// The same in nanoseconds of the kernel's monotonic clock.
    pub(super) at_ns: u64,
    /// How long the reading took.
    cost: Duration,
    translations: Vec<Translation>,
}

impl Destinations {
    const FRESH: Duration = Duration::from_secs(1);
    /// Of the time that passes, reading rules takes no more than the twentieth part.
    const SHARE: u32 = 20;

    /// May they be read again?
    pub(super) fn is_due(&self) -> bool {
        self.at.elapsed() > Self::FRESH.max(self.cost * Self::SHARE)
    }

    /// Could a packet to `from` be sent to `backend`?
    pub(super) fn include(&self, from: SocketAddr, backend: SocketAddr) -> bool {
        self.translations.iter().any(|rule| rule.can_lead(from, backend))
    }

    /// Reads those of a network namespace. `None` if they cannot be read.
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

/// All translations in the calling thread's network namespace.
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
