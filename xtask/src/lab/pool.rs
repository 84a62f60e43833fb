//! Runs guests in parallel.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use tracer_lab::vm::qemu::Qemu;

use super::options::Options;
use super::plan::{GuestPlan, parallel_guests};
use super::printer::{PrintMode, Printer, ScenarioCounter};
use super::result::GuestResult;
use super::runner::{Guest, Lab};

/// Fetches the kernels, then runs the guests, as many at a time as [`parallel_guests`] allows.
pub(crate) fn run(
    lab: &Lab,
    plans: Vec<GuestPlan<'_>>,
    options: &Options,
    mode: PrintMode,
) -> Result<Vec<GuestResult>> {
    let mut waiting = VecDeque::new();
    for plan in plans {
        let kernel = lab.kernel(&plan.kernel, options.build)?;
        lab.control_plane(&plan)?;
        eprintln!(
            "  Kernel  {} is {}, {} scenario{}",
            plan.kernel,
            kernel.release,
            plan.scenarios.len(),
            if plan.scenarios.len() == 1 { "" } else { "s" }
        );
        waiting.push_back((plan, kernel));
    }
    let Some((_, kernel)) = waiting.front() else {
        return Ok(Vec::new());
    };
    let qemu = Qemu::find(lab.cache(), kernel)?;

    let counter = ScenarioCounter::new(waiting.iter().map(|(plan, _)| plan.scenarios.len()).sum());
    let waiting = Mutex::new(waiting);
    let results = Mutex::new(Vec::new());
    let next = || waiting.lock().ok()?.pop_front();
    thread::scope(|scope| {
        for _ in 0..parallel_guests() {
            scope.spawn(|| {
                while let Some((plan, kernel)) = next() {
                    let began = Instant::now();
                    let mut printer = Printer::new(&plan.kernel, mode, options.verbose, &counter);
                    let guest = Guest {
                        qemu: &qemu,
                        kernel: &kernel,
                        plan: &plan,
                    };
                    let scenarios = lab.run(guest, options, &mut printer);
                    let result = GuestResult {
                        kernel: plan.kernel.clone(),
                        took: began.elapsed(),
                        scenarios,
                    };
                    if let Ok(mut results) = results.lock() {
                        results.push(result);
                    }
                }
            });
        }
    });
    results
        .into_inner()
        .context("cannot collect the results: the thread of a guest panicked")
}
