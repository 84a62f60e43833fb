//! A first look through a recording: when it begins and ends, and where in it flows went wrong.

use std::{io, ops::ControlFlow};

use crate::finding::{Finding, Observer, head::Head, selection::Selection};

/// So many places are marked: a screen has not more columns.
const MOST: usize = 4096;

/// Finds the bounds of a recording and marks its failures.
pub struct Scan {
    selection: Selection,
    /// When the recording begins; monotonic nanoseconds.
    pub begin_ns: u64,
    /// When it ends; monotonic nanoseconds.
    pub end_ns: u64,
    /// When failed flows began, thinned out to what a screen can show.
    pub troubles: Vec<u64>,
    /// Marks that are nearer to each other than this are one.
    apart_ns: u64,
}

impl Scan {
    /// Nothing is read yet; only failures in `selection` will be marked.
    #[must_use]
    pub fn new(selection: &Selection) -> Self {
        Self {
            selection: selection.clone(),
            begin_ns: 0,
            end_ns: 0,
            troubles: Vec::new(),
            apart_ns: 1_000_000,
        }
    }

    fn mark(&mut self, ns: u64) {
        let is_apart = |last: &u64| ns.abs_diff(*last) >= self.apart_ns;
        if !self.troubles.last().is_none_or(is_apart) {
            return;
        }
        self.troubles.push(ns);
        if self.troubles.len() > MOST {
            self.apart_ns *= 2;
            let mut kept: Vec<u64> = Vec::new();
            for &ns in &self.troubles {
                if kept.last().is_none_or(|last| ns.abs_diff(*last) >= self.apart_ns) {
                    kept.push(ns);
                }
            }
            self.troubles = kept;
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

    fn damage(&mut self, _: &str) -> io::Result<()> {
        // The player says it on the screen.
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        self.end_ns = self.end_ns.max(now_ns);
        Ok(ControlFlow::Continue(()))
    }
}
