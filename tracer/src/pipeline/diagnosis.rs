//! From flows that the engine hands out to findings for the observer, the same for live runs and recordings.

use std::io;

use crate::{
    diagnose,
    facts::Facts,
    finding::{Clock, Finding, Observer},
    flow::{engine::Engine, fate::Fate, model::Flow},
};

/// What is known of the node while flows are diagnosed.
pub(super) trait Knowledge {
    /// A flow is about to be diagnosed: learns what that needs.
    fn learn(&mut self, flow: &Flow, fate: Fate);
    /// What is known.
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
        // Whatever the observer does, what is known must stay in step with the flows.
        knowledge.learn(flow, fate);
        if done.is_ok() {
            done = diagnose(flow, fate, knowledge.facts(), clock, observer);
        }
    });
    done?;
    observer.flush()
}

/// Passes flows on whose fate is not known by this moment of the monotonic clock, if the observer wants them. Nothing is
/// learned for that: what is known must be the same whether somebody watches or not.
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
