//! One flow, step by step, as a ladder diagram.

mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracer_common::tcp::Part;

pub use self::text::text;
use super::{
    attempts::{self, AttemptLine},
    path::{self, PathStep},
};
use crate::{
    diagnose::{cause::Cause, evidence::Evidence, words},
    finding::{Finding, clock::milliseconds},
    flow::{
        fate::Fate,
        model::{Flow, Step},
    },
};

/// A flow's fate and cause, and its path with a column for each network namespace.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// The flow's number.
    pub id: u64,
    /// The flow's fate.
    pub fate: Fate,
    /// The flow's cause, if it has one.
    pub cause: Option<Cause>,
    /// Time of its first SYN.
    pub start: Timestamp,
    /// Client, NodePort with its service, backend and dataplane, in one line.
    pub ends: String,
    /// Counts and times.
    pub times: Vec<String>,
    /// The flow from the same client port before it: its number, and a sentence about it.
    pub earlier: Option<(u64, String)>,
    /// Network namespaces in the order of the columns: the node first, then others in the order the packet reached them.
    pub lanes: Vec<u32>,
    /// From top to bottom.
    pub rungs: Vec<Rung>,
    /// Steps seen but not kept.
    pub left_out: u64,
    /// What happened to the flow, and why.
    pub explanation: String,
    /// The cost and cause of each SYN, if there are several.
    pub attempts: Vec<AttemptLine>,
    /// The facts that prove the cause.
    pub evidence: Vec<Evidence>,
    /// What to do about the cause.
    pub advice: Option<String>,
}

/// One line of a ladder.
#[derive(Clone, Debug)]
pub enum Rung {
    /// The SYN with this number, from 1, starts here.
    Syn(usize),
    /// A step of the path.
    Step {
        /// What happened, where and when.
        step: PathStep,
        /// Milliseconds since the step before it.
        since_ms: f64,
        /// Index of its column.
        lane: usize,
        /// Column of the step before it.
        from: usize,
        /// The symbol that it is drawn with.
        sign: Sign,
    },
}

/// The effect of a step on the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It passes a device towards the backend.
    Inward,
    /// The answer passes a device towards the client.
    Back,
    /// Something else happens.
    There,
    /// It is dropped, or a function decides to drop it.
    End,
}

impl Ladder {
    /// The ladder of a flow.
    #[must_use]
    pub fn of(finding: &Finding<'_>) -> Self {
        let Finding {
            flow,
            fate,
            diagnosis,
            facts,
            clock,
        } = *finding;
        let steps = path::numbered(flow, facts);
        // The node first, then others in the order the packet reached them.
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
            ends: ends(finding),
            times: times(finding),
            earlier: earlier(flow),
            rungs: rungs(flow, steps, &lanes),
            lanes: names.into_iter().map(|(_, netns)| netns).collect(),
            left_out: flow.steps_left_out,
            explanation: diagnosis.explanation.clone(),
            attempts: attempts::lines(diagnosis),
            evidence: diagnosis.evidence.clone(),
            advice: diagnosis.advice.clone(),
        }
    }

    /// The columns, in their order.
    pub fn columns(&self) -> impl Iterator<Item = String> {
        self.lanes.iter().enumerate().map(|(lane, netns)| match lane {
            0 => format!("the node (netns {netns})"),
            _ => format!("netns {netns}"),
        })
    }
}

fn ends(finding: &Finding<'_>) -> String {
    let flow = finding.flow;
    let service = finding
        .service()
        .map_or_else(String::new, |service| format!(" ({service})"));
    let backend = flow
        .backend()
        .map_or_else(|| "no backend".to_owned(), |backend| backend.to_string());
    let dataplane = finding
        .diagnosis
        .dataplane
        .map_or_else(String::new, |dataplane| format!(" via {}", dataplane.name()));
    format!(
        "{} -> {}{service} -> {backend}{dataplane}",
        flow.client(),
        flow.node()
    )
}

fn times(finding: &Finding<'_>) -> Vec<String> {
    let flow = finding.flow;
    let mut times = vec![
        words::count(flow.attempts.len(), "SYN"),
        words::count(usize::try_from(flow.synacks).unwrap_or(usize::MAX), "SYN-ACK"),
    ];
    if let Some(connect) = flow.connect_ns() {
        times.push(format!("connected after {:.1} ms", milliseconds(connect)));
    }
    if flow.stall_ns().is_some() {
        times.push(format!("{:.0} ms lost", milliseconds(finding.lost_ns())));
    }
    times
}

fn earlier(flow: &Flow) -> Option<(u64, String)> {
    let earlier = flow.earlier.as_ref()?;
    let sentence = format!(
        "Same client port used {:.1} s earlier by flow {} ({}{}).",
        milliseconds(flow.start_ns().saturating_sub(earlier.start_ns)) / 1_000.0,
        earlier.id,
        earlier.fate,
        earlier
            .backend
            .map_or_else(String::new, |backend| format!(", to {backend}"))
    );
    Some((earlier.id, sentence))
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
