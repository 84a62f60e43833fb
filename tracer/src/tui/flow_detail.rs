//! The part of a flow that the Flow tab shows besides its row: the path and the evidence.

use std::borrow::Cow;

use crate::{
    diagnose::{Diagnosis, evidence::Evidence},
    facts::Facts,
    flow::{fate::Fate, model::Flow},
    report::{
        attempts::{self, AttemptLine},
        path::{self, PathStep},
    },
};

/// Path, explanation and evidence of one flow.
#[derive(Clone, Debug)]
pub struct FlowDetail {
    /// Inode number of the network namespace in which the first SYN arrived.
    pub netns: u32,
    /// Time of each SYN, nanoseconds after the first.
    pub syns_ns: Vec<u64>,
    /// SYN-ACKs that the backend sent.
    pub synacks: u32,
    /// The explanation: what happened to this flow, and why.
    pub explanation: String,
    /// The cost and cause of each SYN, if there are several.
    pub attempts: Vec<AttemptLine>,
    /// What to do about the cause.
    pub advice: Option<String>,
    /// The evidence for the cause.
    pub evidence: Vec<Evidence>,
    path: Path,
}

#[derive(Clone, Debug)]
enum Path {
    /// Steps in words: the wording depends on the facts known when the flow was reported.
    Rendered(Vec<PathStep>),
    /// The flow itself. The steps of an established flow are rarely read and need no facts.
    Raw(Box<Flow>),
}

impl FlowDetail {
    /// Copies what the Flow tab may show.
    #[must_use]
    pub fn of(flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts) -> Self {
        let path = match fate {
            Fate::Established => Path::Raw(Box::new(flow.clone())),
            _ => Path::Rendered(path::steps(flow, facts)),
        };
        let since = |attempt: &crate::flow::model::Attempt| attempt.time_ns.saturating_sub(flow.start_ns());
        Self {
            netns: flow.netns,
            syns_ns: flow.attempts.iter().map(since).collect(),
            synacks: flow.synacks,
            explanation: diagnosis.explanation.clone(),
            attempts: attempts::lines(diagnosis),
            advice: diagnosis.advice.clone(),
            evidence: diagnosis.evidence.clone(),
            path,
        }
    }

    /// The path, step by step.
    #[must_use]
    pub fn steps(&self) -> Cow<'_, [PathStep]> {
        match &self.path {
            Path::Rendered(steps) => Cow::Borrowed(steps),
            Path::Raw(flow) => Cow::Owned(path::steps(flow, &Facts::default())),
        }
    }

    /// Its share of the store's limit, counted in steps.
    #[must_use]
    pub fn weight(&self) -> usize {
        1 + self.evidence.len()
            + match &self.path {
                Path::Rendered(steps) => steps.len(),
                Path::Raw(flow) => flow.steps.len(),
            }
    }
}
