//! One flow, step by step: what a ladder diagram of it shows, and that for a terminal.

mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracer_common::tcp::Part;

use super::path::{self, PathStep};
use crate::{
    diagnose::{Diagnosis, cause::Cause, evidence::Evidence},
    facts::Facts,
    finding::clock::{Clock, milliseconds},
    flow::{
        fate::Fate,
        model::{Flow, Step},
    },
};

/// What became of a flow and why, and its way with a column for each network namespace.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// The flow's number.
    pub id: u64,
    /// Its fate.
    pub fate: Fate,
    /// Why.
    pub cause: Option<Cause>,
    /// When its first SYN was seen.
    pub start: Timestamp,
    /// Client, NodePort with its service, backend and dataplane, in one line.
    pub ends: String,
    /// Counts and times.
    pub times: Vec<String>,
    /// The flow from the same client port before it: its number, and what is to say of it.
    pub earlier: Option<(u64, String)>,
    /// Network namespaces in the order of the columns: the node first, then others as the packet came to them.
    pub lanes: Vec<u32>,
    /// From top to bottom.
    pub rungs: Vec<Rung>,
    /// Steps that were seen and not kept.
    pub left_out: u64,
    /// What happened, in words.
    pub explanation: String,
    /// What proves it.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub advice: Option<&'static str>,
}

/// One line of a ladder.
#[derive(Clone, Debug)]
pub enum Rung {
    /// Here the SYN with this number, from 1 on, begins its way.
    Syn(usize),
    /// A step.
    Step {
        /// What happened.
        step: PathStep,
        /// Milliseconds since the step before it.
        since_ms: f64,
        /// Index of its column.
        lane: usize,
        /// That of the step before it.
        from: usize,
        /// What it looks like.
        sign: Sign,
    },
}

/// What a step does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It passes a device on its way to the backend.
    Inward,
    /// The answer passes a device on its way to the client.
    Back,
    /// Something else happens.
    There,
    /// It is discarded, or a function decides that it be.
    End,
}

impl Ladder {
    /// The ladder of a flow.
    #[must_use]
    pub fn of(flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts, clock: &Clock) -> Self {
        let steps = path::numbered(flow, facts);
        // The node first, then others in the order in which the packet came to them.
        let mut lanes: BTreeMap<u32, usize> = BTreeMap::from([(flow.netns, 0)]);
        for (_, step) in &steps {
            let next = lanes.len();
            lanes.entry(step.netns.unwrap_or(flow.netns)).or_insert(next);
        }
        let mut names: Vec<(usize, u32)> = lanes.iter().map(|(&netns, &lane)| (lane, netns)).collect();
        names.sort_unstable();
        Self {
            id: flow.id,
            fate,
            cause: diagnosis.cause,
            start: clock.at(flow.start_ns()),
            ends: ends(flow, diagnosis, facts),
            times: times(flow),
            earlier: earlier(flow),
            rungs: rungs(flow, steps, &lanes),
            lanes: names.into_iter().map(|(_, netns)| netns).collect(),
            left_out: flow.steps_left_out,
            explanation: diagnosis.explanation.clone(),
            evidence: diagnosis.evidence.clone(),
            advice: diagnosis.advice,
        }
    }

    /// What the columns are, in their order.
    pub fn columns(&self) -> impl Iterator<Item = String> {
        self.lanes.iter().enumerate().map(|(lane, netns)| match lane {
            0 => format!("the node (netns {netns})"),
            _ => format!("netns {netns}"),
        })
    }
}

/// The flow for a terminal.
#[must_use]
pub fn flow(flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts, clock: &Clock) -> String {
    text::text(&Ladder::of(flow, fate, diagnosis, facts, clock))
}

fn ends(flow: &Flow, diagnosis: &Diagnosis, facts: &Facts) -> String {
    let service = facts
        .service(flow.netns, flow.node())
        .map_or_else(String::new, |service| format!(" ({service})"));
    let backend = flow
        .backend()
        .map_or_else(|| "no backend".to_owned(), |backend| backend.to_string());
    let dataplane = diagnosis
        .dataplane
        .map_or_else(String::new, |dataplane| format!(" by {}", dataplane.name()));
    format!(
        "{} -> {}{service} -> {backend}{dataplane}",
        flow.client(),
        flow.node()
    )
}

fn times(flow: &Flow) -> Vec<String> {
    let mut times = vec![
        format!("SYNs {}", flow.attempts.len()),
        format!("SYN-ACKs {}", flow.synacks),
    ];
    if let Some(connect) = flow.connect_ns() {
        times.push(format!("connected after {:.1} ms", milliseconds(connect)));
    }
    if let Some(stall) = flow.stall_ns() {
        times.push(format!("{:.0} ms lost", milliseconds(stall)));
    }
    times
}

fn earlier(flow: &Flow) -> Option<(u64, String)> {
    let earlier = flow.earlier.as_ref()?;
    let said = format!(
        "the client's port was used before: flow {}, {}, {:.1} s earlier{}",
        earlier.id,
        earlier.fate,
        milliseconds(flow.start_ns().saturating_sub(earlier.start_ns)) / 1_000.0,
        earlier
            .backend
            .map_or_else(String::new, |backend| format!(", to {backend}"))
    );
    Some((earlier.id, said))
}

fn rungs(flow: &Flow, steps: Vec<(usize, PathStep)>, lanes: &BTreeMap<u32, usize>) -> Vec<Rung> {
    let mut rungs = Vec::with_capacity(steps.len() + flow.attempts.len());
    let mut syns = flow
        .attempts
        .iter()
        .map(|attempt| milliseconds(attempt.time_ns.saturating_sub(flow.start_ns())))
        .zip(1..)
        .peekable();
    let (mut before, mut from) = (0.0, 0);
    for (index, step) in steps {
        while let Some((_, number)) = syns.next_if(|(at, _)| *at <= step.t_ms) {
            rungs.push(Rung::Syn(number));
        }
        let netns = step.netns.unwrap_or(flow.netns);
        let since_ms = step.t_ms - before;
        before = step.t_ms;
        let lane = lanes.get(&netns).copied().unwrap_or_default();
        rungs.push(Rung::Step {
            since_ms,
            lane,
            from,
            sign: flow
                .steps
                .get(index)
                .map_or(Sign::There, |seen| sign(seen, &step)),
            step,
        });
        from = lane;
    }
    rungs
}

fn sign(step: &Step, line: &PathStep) -> Sign {
    if line.is_drop {
        return Sign::End;
    }
    let event = &step.event;
    let passes = event.hook.is_device();
    match event.part {
        Part::Syn | Part::Ack if passes => Sign::Inward,
        Part::SynAck if passes => Sign::Back,
        _ => Sign::There,
    }
}
