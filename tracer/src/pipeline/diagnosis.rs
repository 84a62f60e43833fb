//! Turns the flows that the engine hands out into findings for the observer, for live runs and recordings alike.

use std::{borrow::Cow, collections::BTreeSet, io};

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
    let facts = &*holding_for(flow, facts);
    observer.flow(&Finding {
        flow,
        fate,
        diagnosis: &diagnose::diagnose(flow, fate, facts),
        facts,
        clock,
    })
}

/// The facts without those of network namespaces that took over an inode number after the flow was there.
fn holding_for<'a>(flow: &Flow, facts: &'a Facts) -> Cow<'a, Facts> {
    if facts.netns_since.is_empty() {
        return Cow::Borrowed(facts);
    }
    let steps = flow.steps.iter().map(|step| &step.event);
    let former: BTreeSet<u32> = steps
        .chain(&flow.details)
        .filter(|event| facts.is_of_former_netns(event.netns, event.time_ns))
        .map(|event| event.netns)
        .collect();
    if former.is_empty() {
        return Cow::Borrowed(facts);
    }
    let mut holding = facts.clone();
    for netns in former {
        holding.forget_netns(netns);
    }
    Cow::Owned(holding)
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        hook::Hook,
        record::{Header, Phase},
        tuple::{Addr, Tuple},
    };

    use super::*;
    use crate::{
        decode::event::{Event, Payload},
        facts::NetnsFacts,
        flow::engine::Limits,
    };

    #[test]
    fn a_flow_of_a_former_namespace_gets_no_facts_of_the_new_one() {
        let header = Header {
            time_ns: 100,
            flow: 1,
            netns: 7,
            hook: Hook::NetifReceive as u16,
            phase: Phase::Entry as u8,
            tcp_flags: tracer_common::tcp::SYN,
            tuple: Tuple {
                saddr: Addr::v4([10, 0, 0, 2]),
                daddr: Addr::v4([10, 0, 0, 1]),
                sport: 41_000,
                dport: 30_080,
            },
            ..Header::default()
        };
        let mut engine = Engine::new(1, Limits::default());
        engine.push(Event::new(&header, Payload::Packet).expect("a hook"));
        let mut facts = Facts::default();
        facts.netns.insert(7, NetnsFacts::default());
        facts.netns.insert(8, NetnsFacts::default());
        let mut known = Vec::new();
        engine.finish(1000, |flow, _| {
            for since in [None, Some(100), Some(101)] {
                facts.netns_since = since.map(|since| (7, since)).into_iter().collect();
                let holding = holding_for(flow, &facts);
                known.push((holding.netns.contains_key(&7), holding.netns.contains_key(&8)));
            }
        });
        assert_eq!(known, [(true, true), (true, true), (false, true)]);
    }
}
