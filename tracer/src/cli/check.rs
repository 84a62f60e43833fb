//! `tracer check`: the hazards of this node or of a recorded one, without tracing.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;

use super::{
    args::{CheckOptions, FailOn},
    confined,
    exit::Failure,
    output,
};
use crate::{
    check::{self, Judged, State},
    facts::{Facts, node_state::NodeState},
    finding::{Finding, Observer, head::Head, run::End},
    node::{host::Host, modules, state},
    pipeline::replay,
    probe::ipvs_proof::{pick_scheduler, reuse_trial},
    report::{escape::note, hazards, json},
};

/// Reads the node's state, judges it and prints the result.
pub(super) fn run(options: &CheckOptions) -> Result<(), Failure> {
    let (node, time) = match &options.file {
        Some(file) => recorded(file)?,
        None => (read(options)?, Timestamp::now()),
    };
    let judged = check::judge(&node);
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{}", json::check(&node, time, &judged))?;
    } else {
        out.write_all(hazards::text(&judged, options.verbose).as_bytes())?;
    }
    out.flush()?;
    fail_on(options.fail_on, &judged)
}

/// The state of this node.
fn read(options: &CheckOptions) -> Result<NodeState, Failure> {
    let host = match &options.host_root {
        None => Host::this(),
        Some(root) => Host::at(root).with_context(|| format!("cannot use {}", root.display()))?,
    };
    let mut node = state::read(&host).context("cannot read the state of the node")?;
    if options.try_reuse {
        let modules = modules::read().context("cannot read the list of modules")?;
        if pick_scheduler(&modules).is_some() {
            note(format_args!("--try makes {}", reuse_trial::MAKES));
            node.reuse_trial = reuse_trial::try_reuse(&modules);
        } else {
            note("--try makes nothing: ip_vs or a scheduler of it is not loaded");
        }
    }
    Ok(node)
}

/// The state of the node of a recording, and when it was read.
fn recorded(file: &Path) -> Result<(NodeState, Timestamp), Failure> {
    let mut view = View::default();
    for run in confined::runs(&[file.to_owned()])? {
        replay::play(run, &mut view)?;
    }
    match (view.node, view.begun) {
        (Some(node), Some(begun)) => Ok((*node, begun)),
        _ => Err(anyhow!(
            "cannot check {}: it has no state of the node; record it with this version of tracer",
            file.display()
        )
        .into()),
    }
}

/// Picks the state of the node from a recording.
#[derive(Default)]
struct View {
    node: Option<Box<NodeState>>,
    begun: Option<Timestamp>,
}

impl Observer for View {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.begun = Some(head.ready);
        Ok(())
    }

    fn flow(&mut self, _: &Finding<'_>) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _: &End) -> io::Result<()> {
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        output::warn(what);
        Ok(())
    }

    fn facts(&mut self, facts: &Facts) {
        self.node.clone_from(&facts.node);
    }
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
