//! `tracer hooks`: the hooks that this kernel offers, and what each one is for.

use std::io::{self, Write as _};

use tracer_common::hook::{Hook, HookInfo};

use super::{args::HooksOptions, exit::Failure};
use crate::{
    diagnose::{catalogue, cause::Cause},
    finding::hook_state::HookState,
    pipeline::preflight,
    probe::{
        attach::{Probe, Selection},
        plan::{self, Planned, State},
    },
    report::escape::{self, clean},
};

/// Attaches every hook briefly to see whether this kernel accepts it.
pub(super) fn run(options: &HooksOptions) -> Result<(), Failure> {
    let kernel = preflight::prepare()?.kernel;
    preflight::Unreadable::default().list(&kernel.offsets);
    // No port is selected, so no packet is traced.
    let (mut probe, _ring) = Probe::attach(
        plan::begin_at(kernel.plan(), true),
        kernel.offsets,
        &Selection::default(),
    )
    .map_err(preflight::cannot_attach)?;
    probe.try_on_demand();
    let mut out = io::stdout().lock();
    if options.json {
        let lines: Vec<HookState> = plan::states(probe.hooks());
        escape::json_pretty(&mut out, &lines)?;
        writeln!(out)?;
        return Ok(());
    }
    for planned in probe.hooks() {
        writeln!(out, "{}", clean(&line(planned)))?;
    }
    let is_used = |hook| {
        probe
            .hooks()
            .iter()
            .any(|planned| planned.info.hook == hook && planned.state.kind().is_available())
    };
    for (cause, missing) in catalogue::undetectable(is_used) {
        let missing: Vec<&str> = missing.into_iter().map(Hook::name).collect();
        writeln!(
            out,
            "not detectable on this kernel, reported as `unknown`: {cause} (needs {})",
            missing.join(", ")
        )?;
    }
    Ok(())
}

/// One hook: its state, and what it is for or why it is not attached.
fn line(planned: &Planned) -> String {
    let info = planned.info;
    let why = match &planned.state {
        State::Attached => serves(info),
        State::OnDemand(why) => format!("{}; {why}", serves(info)),
        State::Unneeded(why) => (*why).to_owned(),
        State::Missing(why) | State::Disabled(why) => why.clone(),
    };
    format!(
        "{:<9} {:<26} {:<17} {why}",
        planned.state.kind(),
        info.name,
        info.kind.name()
    )
}

/// The purpose of a hook, and the causes that it helps to prove.
fn serves(info: &HookInfo) -> String {
    let causes: Vec<&str> = catalogue::causes_of(info.hook).map(Cause::name).collect();
    if causes.is_empty() {
        return info.purpose.to_owned();
    }
    format!("{}: {}", info.purpose, causes.join(" "))
}

#[cfg(test)]
mod tests {
    use tracer_common::hook::ALL;

    use super::*;

    fn attached(hook: Hook) -> String {
        let info = ALL.iter().find(|info| info.hook == hook).expect("a row");
        line(&Planned {
            info,
            state: State::Attached,
        })
    }

    #[test]
    fn a_hook_has_its_purpose_and_its_causes() {
        let text = attached(Hook::TcpSendReset6);
        assert!(text.contains("RSTs that TCP sends: "), "{text}");
        for cause in catalogue::causes_of(Hook::TcpSendReset) {
            assert!(text.contains(cause.name()), "{cause} is missing: {text}");
        }
        assert!(attached(Hook::XtDnat).ends_with("DNAT by iptables"));
    }

    #[test]
    fn every_cause_that_needs_hooks_is_listed_with_them() {
        for row in catalogue::rows() {
            for &hook in row.hooks.iter().flat_map(|group| group.iter()) {
                assert!(attached(hook).contains(row.cause.name()), "{}", row.cause);
            }
        }
    }
}
