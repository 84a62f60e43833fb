//! What is said of the hooks of a run.

use tracer_common::hook::Hook;

use crate::{
    probe::plan::{Planned, State},
    report::escape::note,
};

/// How many of them are attached.
pub(super) fn count_attached(hooks: &[Planned]) -> usize {
    hooks.iter().filter(|hook| hook.state == State::Attached).count()
}

/// Says which hooks tracer cannot use, and why.
pub(super) fn print_disabled(hooks: &[Planned]) {
    for hook in hooks {
        if let State::Disabled(why) = &hook.state {
            note(format_args!("hook {} is disabled: {why}", hook.info.name));
        }
    }
}

/// The hooks that are not available: missing or disabled.
pub(super) fn absent(hooks: &[Planned]) -> impl Iterator<Item = Hook> {
    hooks
        .iter()
        .filter(|hook| matches!(hook.state, State::Missing(_) | State::Disabled(_)))
        .map(|hook| hook.info.hook)
}
