//! `tracer hooks`: the hooks that this kernel offers, and why others are off.

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

/// Attaches every hook for a moment, to see what this kernel really does with it.
pub(super) fn run(options: &HooksOptions) -> Result<(), Failure> {
    let survey = preflight::prepare()?.survey;
    preflight::Unreadable::default().list(&survey.offsets);
    // No port is selected, so no packet is traced.
    let (mut probe, _ring) =
        Probe::attach(survey.plan(), survey.offsets, &Selection::default()).context("cannot attach hooks")?;
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
            // It will be attached, so both are worth knowing.
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
            "not detectable on this kernel, reported as `unknown`: {cause} (needs {})",
            missing.join(", ")
        )?;
    }
    Ok(())
}
