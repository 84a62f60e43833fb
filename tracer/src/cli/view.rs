//! The way from a flow to whoever wants to hear of it, the same for live tracing and for a recording.

use crate::{
    diagnose::{self, Diagnosis},
    flow::{engine::Engine, fate::Fate, model::Flow},
    node::facts::Facts,
    probe::costs::Costs,
    report::Clock,
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
};

use super::exit::Failure;

/// A flow whose fate is known, with all that can be said about it.
pub(super) struct Told<'a> {
    pub(super) flow: &'a Flow,
    pub(super) fate: Fate,
    pub(super) diagnosis: Diagnosis,
    pub(super) facts: &'a Facts,
    pub(super) clock: &'a Clock,
}

/// How a recording or a run goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Records so far.
    pub(super) events: u64,
    /// Bytes of the recording so far.
    pub(super) bytes: u64,
}

/// Whoever wants to hear what tracing finds out.
pub(super) trait View {
    /// Every hook that will attach is attached.
    fn start(&mut self, head: &Head) -> Result<(), Failure>;
    /// Hooks changed their state.
    fn hooks(&mut self, hooks: &Hooks) -> Result<(), Failure>;
    /// A flow's fate is known, or has changed.
    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure>;
    /// Does it want to hear of flows before their fate is known?
    fn wants_open(&self) -> bool {
        false
    }
    /// Records were lost.
    fn health(&mut self, health: &Health) -> Result<(), Failure>;
    /// There is no more.
    fn end(&mut self, end: &End) -> Result<(), Failure>;
    /// Nothing more is to be told for a while.
    fn pause(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// So many records of a recording were read by the moment that is told of next.
    fn records(&mut self, _: u64) {}
    /// Flows are about to be asked for their fates at this moment of the monotonic clock.
    fn now(&mut self, _: u64) -> Result<(), Failure> {
        Ok(())
    }
    /// Something is wrong with the recording: what is told of it may not be all.
    fn damage(&mut self, what: &str) -> Result<(), Failure> {
        complain(what);
        Ok(())
    }
    /// What is known of the node when there is no more to tell.
    fn facts(&mut self, _: &Facts) {}
    /// Comes once a second.
    fn progress(&mut self, _: Progress) {}
    /// Does it want to know what the hooks cost? To find out costs a little itself.
    fn wants_costs(&self) -> bool {
        false
    }
    /// What the hooks cost in the last second, while that is wanted.
    fn costs(&mut self, _: Costs) {}
    /// Has it heard enough?
    fn is_over(&self) -> bool {
        false
    }
}

/// Says on standard error what is wrong with a recording.
pub(super) fn complain(what: &str) {
    // Millions of them would only take time.
    if !cfg!(fuzzing) {
        eprintln!("tracer: {what}");
    }
}

/// What is known of the node.
pub(super) trait Knowledge {
    /// A flow is about to be told of: learns what its diagnosis needs.
    fn learn(&mut self, flow: &Flow, fate: Fate);
    /// What is known.
    fn facts(&self) -> &Facts;
}

/// Explains each flow that is handed out, and tells of it.
pub(super) fn tell(
    ask: impl FnOnce(&mut dyn FnMut(&Flow, Fate)),
    knowledge: &mut dyn Knowledge,
    clock: &Clock,
    view: &mut dyn View,
) -> Result<(), Failure> {
    let mut done = Ok(());
    ask(&mut |flow, fate| {
        knowledge.learn(flow, fate);
        if done.is_ok() {
            done = explain(flow, fate, knowledge.facts(), clock, view);
        }
    });
    done?;
    view.pause()
}

/// Tells of flows whose fate is not known by this moment of the monotonic clock, if that is wanted. Nothing is learned for
/// that: what is known must be the same whether somebody looks on or not.
pub(super) fn tell_open(
    engine: &mut Engine,
    now_ns: u64,
    facts: &Facts,
    clock: &Clock,
    view: &mut dyn View,
) -> Result<(), Failure> {
    if !view.wants_open() {
        return Ok(());
    }
    engine.remember_open();
    let mut done = Ok(());
    engine.take_open(now_ns, |flow| {
        if done.is_ok() {
            done = explain(flow, Fate::Pending, facts, clock, view);
        }
    });
    done
}

fn explain(
    flow: &Flow,
    fate: Fate,
    facts: &Facts,
    clock: &Clock,
    view: &mut dyn View,
) -> Result<(), Failure> {
    view.flow(&Told {
        flow,
        fate,
        diagnosis: diagnose::diagnose(flow, fate, facts),
        facts,
        clock,
    })
}
