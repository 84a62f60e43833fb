//! The report of a run or of a part of it.

use std::time::Duration;

use super::tally::Tally;
use super::timing::{Share, Timing};

/// The results of the steps, and how long each took.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) tally: Tally,
    pub(super) timing: Timing,
}

impl Report {
    /// The report of one check.
    pub(super) fn of(name: &str, passed: bool, took: Duration, share: Share) -> Self {
        let mut report = Self {
            tally: Tally::of(name, passed),
            timing: Timing::default(),
        };
        report.timing.add(name, took, share);
        report
    }

    /// The report of checks that could not run.
    pub(super) fn failed(name: &str) -> Self {
        Self {
            tally: Tally::of(name, false),
            timing: Timing::default(),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.tally.add(other.tally);
        self.timing.extend(other.timing);
    }
}
