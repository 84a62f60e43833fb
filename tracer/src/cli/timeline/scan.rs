//! A first look through a recording: when it begins and ends, and where in it flows went wrong.

use crate::{
    cli::{
        args::Select,
        exit::Failure,
        select,
        view::{Told, View},
    },
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
    tui::row::is_trouble,
};

/// So many places are marked: a screen has not more columns.
const MOST: usize = 4096;

/// See the module.
pub(super) struct Scan {
    select: Select,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    pub(super) troubles: Vec<u64>,
    /// Marks that are nearer to each other than this are one.
    apart_ns: u64,
}

impl Scan {
    pub(super) fn new(select: &Select) -> Self {
        Self {
            select: select.clone(),
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

impl View for Scan {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        self.begin_ns = head.monotonic_ns;
        self.end_ns = head.monotonic_ns;
        Ok(())
    }

    fn hooks(&mut self, _: &Hooks) -> Result<(), Failure> {
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        if is_trouble(told.fate) && select::is_wanted(&self.select, told) {
            self.mark(told.flow.start_ns());
        }
        Ok(())
    }

    fn health(&mut self, _: &Health) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, _: &End) -> Result<(), Failure> {
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> Result<(), Failure> {
        self.end_ns = self.end_ns.max(now_ns);
        Ok(())
    }
}
