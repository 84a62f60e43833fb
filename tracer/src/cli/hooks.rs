//! `tracer hooks`: which hooks this kernel offers.

use std::io::{self, Write as _};

use anyhow::Context as _;
use tracer_common::hook::Hook;

use super::{args::HooksOptions, exit::Failure, start};
use crate::{
    diagnose::catalogue,
    probe::{
        attach::{Probe, Selection},
        plan::Planned,
    },
    report::json::HookLine,
};

/// Attaches every hook for a moment, to tell what this kernel really does with it.
pub(super) fn run(options: &HooksOptions) -> Result<(), Failure> {
    let ready = start::prepare()?;
    start::tell_unknown(&ready.offsets);
    // No port is selected, so no packet is followed.
    let (probe, _ring) = Probe::attach(ready.plan, &ready.offsets, &Selection::default())
        .context("cannot attach tracer's hooks")?;
    let mut out = io::stdout().lock();
    if options.json {
        let lines: Vec<HookLine> = lines(probe.hooks());
        serde_json::to_writer_pretty(&mut out, &lines).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    for planned in probe.hooks() {
        let why = planned.state.why().unwrap_or(planned.info.serves);
        writeln!(
            out,
            "{:<9} {:<26} {:<17} {why}",
            planned.state.name(),
            planned.info.name,
            planned.info.kind.name()
        )?;
    }
    let attached = |hook| {
        probe
            .hooks()
            .iter()
            .any(|planned| planned.info.hook == hook && planned.state.why().is_none())
    };
    for (cause, missing) in catalogue::untold(attached) {
        let missing: Vec<&str> = missing.into_iter().map(Hook::name).collect();
        writeln!(
            out,
            "cannot be told here, and is `unknown`: {cause} (needs {})",
            missing.join(", ")
        )?;
    }
    Ok(())
}

/// The hooks as the `start` line tells them.
pub(super) fn lines(hooks: &[Planned]) -> Vec<HookLine> {
    hooks
        .iter()
        .map(|planned| HookLine {
            name: planned.info.name,
            kind: planned.info.kind.name(),
            state: planned.state.name(),
            why: planned.state.why().map(str::to_owned),
        })
        .collect()
}
