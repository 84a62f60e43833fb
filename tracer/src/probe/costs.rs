//! The cost of the kernel half: runs and run time of its programs, as the kernel counts them.
//!
//! The kernel counts only while a process holds a descriptor from `BPF_ENABLE_STATS` (since 5.8), because reading the clock
//! twice for each run has a cost of its own.

use std::{collections::BTreeMap, os::fd::OwnedFd, time::Instant};

use aya::{
    Ebpf,
    programs::{Program, ProgramInfo},
    sys::{Stats, enable_stats},
};
use tracer_common::hook::HookInfo;

use crate::finding::costs::{Cost, Costs};

/// Makes the kernel count run times for as long as it exists.
pub(super) struct Meter {
    _counting: OwnedFd,
    last: BTreeMap<&'static str, Cost>,
    at: Instant,
}

impl Meter {
    /// Starts counting. `None` if this kernel cannot.
    pub(super) fn start(ebpf: &Ebpf, hooks: impl Iterator<Item = &'static HookInfo>) -> Option<Self> {
        let counting = enable_stats(Stats::RunTime).ok()?;
        Some(Self {
            _counting: counting,
            last: read(ebpf, hooks),
            at: Instant::now(),
        })
    }

    /// The cost of the hooks since the last reading.
    pub(super) fn read(&mut self, ebpf: &Ebpf, hooks: impl Iterator<Item = &'static HookInfo>) -> Costs {
        let now = read(ebpf, hooks);
        let since = |(name, cost): (&&'static str, &Cost)| {
            let last = self.last.get(name).copied().unwrap_or_default();
            let cost = Cost {
                runs: cost.runs.saturating_sub(last.runs),
                run_ns: cost.run_ns.saturating_sub(last.run_ns),
            };
            (*name, cost)
        };
        let costs = Costs {
            over: self.at.elapsed(),
            by_hook: now.iter().map(since).collect(),
        };
        self.at = Instant::now();
        self.last = now;
        costs
    }
}

fn read(ebpf: &Ebpf, hooks: impl Iterator<Item = &'static HookInfo>) -> BTreeMap<&'static str, Cost> {
    let mut out = BTreeMap::new();
    for info in hooks {
        let programs = [info.name, info.exit_program];
        let counted = programs
            .into_iter()
            .filter_map(|name| info_of(ebpf.program(name)?));
        let cost = counted.fold(None, |sum: Option<Cost>, program| {
            let sum = sum.unwrap_or_default();
            Some(Cost {
                runs: sum.runs.saturating_add(program.run_count()),
                run_ns: sum
                    .run_ns
                    .saturating_add(u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX)),
            })
        });
        if let Some(cost) = cost {
            out.insert(info.name, cost);
        }
    }
    out
}

/// `None` for a program that is not loaded.
fn info_of(program: &Program) -> Option<ProgramInfo> {
    match program {
        Program::KProbe(program) => program.info().ok(),
        Program::RawTracePoint(program) => program.info().ok(),
        _ => None,
    }
}
