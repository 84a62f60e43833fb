//! `tracer hooks`: which hooks this kernel offers.

use std::io::{self, Write as _};

use anyhow::Context as _;
use tracer_common::hook::Hook;

use super::{args::HooksOptions, exit::Failure};
use crate::{
    diagnose::catalogue,
    finding::hook_state::HookState,
    pipeline::preflight,
    probe::{
        attach::{Probe, Selection},
        plan::{self, State},
    },
};

/// Attaches every hook for a moment, to tell what this kernel really does with it.
pub(super) fn run(options: &HooksOptions) -> Result<(), Failure> {
    let kernel = preflight::prepare()?.kernel;
    preflight::Unreadable::default().name(&kernel.offsets);
    // No port is selected, so no packet is followed.
    let (mut probe, _ring) = Probe::attach(kernel.plan(), kernel.offsets, &Selection::default())
        .context("cannot attach tracer's hooks")?;
    probe.try_on_demand();
    let mut out = io::stdout().lock();
    if options.json {
        let lines: Vec<HookState> = plan::states(probe.hooks());
        serde_json::to_writer_pretty(&mut out, &lines).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    for planned in probe.hooks() {
        let serves = planned.info.serves;
        let why = match &planned.state {
            State::Attached => serves.to_owned(),
            // It will serve, so both are worth knowing.
            State::OnDemand(why) => format!("{serves}; {why}"),
            State::Unneeded(why) => (*why).to_owned(),
            State::Missing(why) | State::Disabled(why) => why.clone(),
        };
        writeln!(
            out,
            "{:<9} {:<26} {:<17} {why}",
            planned.state.kind(),
            planned.info.name,
            planned.info.kind.name()
        )?;
    }
    let serves = |hook| {
        probe
            .hooks()
            .iter()
            .any(|planned| planned.info.hook == hook && planned.state.kind().is_available())
    };
    for (cause, missing) in catalogue::untold(serves) {
        let missing: Vec<&str> = missing.into_iter().map(Hook::name).collect();
        writeln!(
            out,
            "cannot be told here, and is `unknown`: {cause} (needs {})",
            missing.join(", ")
        )?;
    }
    Ok(())
}
