//! `tracer check`: the hazards of this node, without tracing.

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::{
    args::{CheckOptions, FailOn},
    exit::Failure,
};
use crate::{
    check::{self, Judged, State},
    node::{host::Host, state},
    report::{hazards, json},
};

/// Reads the node's state, judges it and prints the result.
pub(super) fn run(options: &CheckOptions) -> Result<(), Failure> {
    let host = match &options.host_root {
        None => Host::this(),
        Some(root) => Host::at(root).with_context(|| format!("cannot use {}", root.display()))?,
    };
    let node = state::read(&host).context("cannot read the state of the node")?;
    let judged = check::judge(&node);
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{}", json::check(&node, jiff::Timestamp::now(), &judged))?;
    } else {
        out.write_all(hazards::text(&judged, options.verbose).as_bytes())?;
    }
    out.flush()?;
    fail_on(options.fail_on, &judged)
}

/// Fails if a hazard is in the state given with `--fail-on`, or in a worse one.
fn fail_on(state: Option<FailOn>, judged: &[Judged]) -> Result<(), Failure> {
    let is_bad = |judged: &&Judged| {
        matches!(
            (state, &judged.state),
            (Some(_), State::Hurts(_)) | (Some(FailOn::Armed), State::Armed(_))
        )
    };
    match judged.iter().find(is_bad) {
        Some(Judged { hazard, state }) => Err(Failure::FailOn(format!("{} {}", hazard.id, state.phrase()))),
        None => Ok(()),
    }
}
