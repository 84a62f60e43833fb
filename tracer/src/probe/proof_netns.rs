//! The network namespace in which tracer proves the layout of IPVS.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

/// The network namespace in which a proof makes its connections. They are not the node's, so live tracing leaves out
/// what happens there.
#[derive(Debug, Default)]
pub struct ProofNetns {
    /// Its inode number; 0 before the first proof.
    netns: AtomicU32,
    /// When the proof ended, monotonic nanoseconds. Later another namespace may have the same inode number.
    ended_ns: AtomicU64,
}

impl ProofNetns {
    /// Whether something in this namespace (inode number) at this time (monotonic nanoseconds) was part of a proof.
    #[must_use]
    pub fn contains(&self, netns: u32, time_ns: u64) -> bool {
        netns != 0
            && netns == self.netns.load(Ordering::Acquire)
            && time_ns <= self.ended_ns.load(Ordering::Acquire)
    }

    /// A proof starts in this namespace.
    pub(super) fn begin(&self, netns: u32) {
        self.ended_ns.store(u64::MAX, Ordering::Release);
        self.netns.store(netns, Ordering::Release);
    }

    /// The proof is over.
    pub(super) fn end(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let now = now.map_or(u64::MAX, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        self.ended_ns.store(now, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_during_a_proof_belong_to_it() {
        let netns = ProofNetns::default();
        assert!(!netns.contains(0, 0));
        netns.begin(7);
        assert!(netns.contains(7, u64::MAX) && !netns.contains(8, 1) && !netns.contains(0, 1));
        netns.end();
        assert!(netns.contains(7, 1) && !netns.contains(7, u64::MAX));
    }
}
