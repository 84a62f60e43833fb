//! Turns the flows that the engine hands out into findings for the observer, for live runs and recordings alike.

use std::io;

use crate::{
    diagnose,
    facts::Facts,
    finding::{Clock, Finding, Observer},
    flow::{engine::Engine, fate::Fate, model::Flow},
};

/// The facts about the node while flows are diagnosed.
pub(super) trait Knowledge {
    /// Reads the facts that the diagnosis of this flow needs. Called right before it.
    fn learn(&mut self, flow: &Flow, fate: Fate);
    /// The facts as last read.
    fn facts(&self) -> &Facts;
}

/// Diagnoses each flow that `engine` hands out, and passes it on to the observer.
pub(super) fn report(
    engine: impl FnOnce(&mut dyn FnMut(&Flow, Fate)),
    knowledge: &mut dyn Knowledge,
    clock: &Clock,
    observer: &mut dyn Observer,
) -> io::Result<()> {
    let mut done = Ok(());
    engine(&mut |flow, fate| {
        // Even if the observer has failed: the facts must stay in step with the flows.
        knowledge.learn(flow, fate);
        if done.is_ok() {
            done = diagnose(flow, fate, knowledge.facts(), clock, observer);
        }
    });
    done?;
    observer.flush()
}

/// Passes on the flows that are pending at `now_ns` of the monotonic clock, if the observer wants them. Reads no facts for
/// them: the facts must not depend on whether the observer wants pending flows.
pub(super) fn report_pending(
    engine: &mut Engine,
    now_ns: u64,
    facts: &Facts,
    clock: &Clock,
    observer: &mut dyn Observer,
) -> io::Result<()> {
    if !observer.wants_pending() {
        return Ok(());
    }
    engine.keep_pending();
    let mut done = Ok(());
    engine.take_pending(now_ns, |flow| {
        if done.is_ok() {
            done = diagnose(flow, Fate::Pending, facts, clock, observer);
        }
    });
    done
}

fn diagnose(
    flow: &Flow,
    fate: Fate,
    facts: &Facts,
    clock: &Clock,
    observer: &mut dyn Observer,
) -> io::Result<()> {
    observer.flow(&Finding {
        flow,
        fate,
        diagnosis: &diagnose::diagnose(flow, fate, facts),
        facts,
        clock,
    })
}
