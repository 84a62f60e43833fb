//! When the hooks that wait for suspicion were attached: what was not watched must not be taken for what did not happen.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The most gaps that are kept. Flows are judged within minutes.
const MOST: usize = 256;

/// A period in which only the hooks that run at rest were all attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When the first of the other hooks was about to be detached, or tracing began: monotonic nanoseconds.
    pub since_ns: u64,
    /// When the last of the other hooks had been attached, monotonic nanoseconds; `None` if they still are not.
    pub until_ns: Option<u64>,
}

/// The periods that were not watched in full, oldest first. Empty in recordings of versions that always watched in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gaps(VecDeque<Gap>);

impl Gaps {
    /// From now on, not all hooks are attached.
    pub fn begin(&mut self, now_ns: u64) {
        if self.0.back().is_some_and(|gap| gap.until_ns.is_none()) {
            return;
        }
        self.0.push_back(Gap {
            since_ns: now_ns,
            until_ns: None,
        });
        if self.0.len() > MOST
            && let Some(oldest) = self.0.pop_front()
            && let Some(next) = self.0.front_mut()
        {
            // Both count as one: what was watched between them is no longer known.
            next.since_ns = oldest.since_ns;
        }
    }

    /// From now on, all hooks are attached.
    pub fn end(&mut self, now_ns: u64) {
        if let Some(gap) = self.0.back_mut() {
            gap.until_ns.get_or_insert(now_ns);
        }
    }

    /// Whether all hooks were attached from `since_ns` to `until_ns`.
    #[must_use]
    pub fn is_watched(&self, since_ns: u64, until_ns: u64) -> bool {
        !self.0.iter().any(|gap| {
            gap.since_ns <= until_ns && gap.until_ns.is_none_or(|gap_until_ns| gap_until_ns > since_ns)
        })
    }

    /// The same with the oldest gaps joined to one, if there are more than tracer keeps: a recording decides nothing about memory.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let excess = self.0.len().saturating_sub(MOST);
        let oldest = self.0.drain(..excess).next();
        // What was watched between them is no longer known.
        if let Some(oldest) = oldest
            && let Some(next) = self.0.front_mut()
        {
            next.since_ns = oldest.since_ns;
        }
        self
    }

    /// Whether there is no gap.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_gaps_everything_was_watched() {
        assert!(Gaps::default().is_watched(0, u64::MAX));
    }

    #[test]
    fn an_open_gap_lasts() {
        let mut gaps = Gaps::default();
        gaps.begin(10);
        assert!(gaps.is_watched(3, 9));
        assert!(!gaps.is_watched(3, 10));
        assert!(!gaps.is_watched(100, 200));
        gaps.begin(50);
        gaps.end(20);
        assert!(gaps.is_watched(20, 1000));
        assert!(!gaps.is_watched(19, 1000));
    }

    #[test]
    fn the_oldest_gaps_become_one() {
        let mut gaps = Gaps::default();
        let most = u64::try_from(MOST).unwrap();
        for at in 0..most + 2 {
            gaps.begin(at * 10);
            gaps.end(at * 10 + 5);
        }
        assert_eq!(gaps.0.len(), MOST);
        assert!(!gaps.is_watched(6, 9), "no longer known");
        assert!(gaps.is_watched(most * 10 + 5, most * 10 + 9));
    }

    #[test]
    fn too_many_gaps_of_a_recording_become_one() {
        let gap = |at: u64| Gap {
            since_ns: at * 10,
            until_ns: Some(at * 10 + 5),
        };
        let most = u64::try_from(MOST).unwrap();
        let gaps = Gaps((0..most + 9).map(gap).collect()).bounded();
        assert_eq!(gaps.0.len(), MOST);
        assert!(!gaps.is_watched(6, 9), "no longer known");
        assert!(gaps.is_watched(most * 10 + 5, most * 10 + 9));
    }
}
