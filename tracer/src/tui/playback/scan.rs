//! A first pass through a recording: its start, its end, and when flows failed.

use std::{io, ops::ControlFlow};

use crate::finding::{Finding, Observer, head::Head, selection::Selection};

/// The most marks: no screen has more columns.
const MAX: usize = 4096;

/// Finds the bounds of a recording and marks its failures.
pub struct Scan {
    selection: Selection,
    /// Start of the recording; monotonic nanoseconds.
    pub begin_ns: u64,
    /// Its end; monotonic nanoseconds.
    pub end_ns: u64,
    /// Starts of failed flows, thinned out to what a screen can show; monotonic nanoseconds.
    pub failures: Vec<u64>,
    /// The first damage found.
    pub damage: Option<String>,
    /// Marks closer than this are merged.
    apart_ns: u64,
}

impl Scan {
    /// A scan that marks only failures in `selection`.
    #[must_use]
    pub fn new(selection: &Selection) -> Self {
        Self {
            selection: selection.clone(),
            begin_ns: 0,
            end_ns: 0,
            failures: Vec::new(),
            damage: None,
            apart_ns: 1_000_000,
        }
    }

    fn mark(&mut self, ns: u64) {
        let is_apart = |last: &u64| ns.abs_diff(*last) >= self.apart_ns;
        if !self.failures.last().is_none_or(is_apart) {
            return;
        }
        self.failures.push(ns);
        if self.failures.len() > MAX {
            self.apart_ns *= 2;
            let mut kept: Vec<u64> = Vec::new();
            for &ns in &self.failures {
                if kept.last().is_none_or(|last| ns.abs_diff(*last) >= self.apart_ns) {
                    kept.push(ns);
                }
            }
            self.failures = kept;
        }
    }
}

impl Observer for Scan {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.begin_ns = head.monotonic_ns;
        self.end_ns = head.monotonic_ns;
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        if finding.is_failure() && self.selection.wants(finding) {
            self.mark(finding.flow.start_ns());
        }
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        // All of it is reported again when the player reaches it.
        self.damage.get_or_insert_with(|| what.to_owned());
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        self.end_ns = self.end_ns.max(now_ns);
        Ok(ControlFlow::Continue(()))
    }
}
