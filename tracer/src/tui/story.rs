//! What can be told of one flow: its way, and what proves its cause.

use std::borrow::Cow;

use crate::{
    diagnose::{Diagnosis, evidence::Evidence},
    facts::Facts,
    flow::{fate::Fate, model::Flow},
    report::path::{self, PathStep},
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Story {
    /// Network namespace of the node, as the client met it.
    pub netns: u32,
    /// When each SYN came, nanoseconds after the first.
    pub syns_ns: Vec<u64>,
    /// SYN-ACKs of the backend.
    pub synacks: u32,
    /// What happened, in words about this flow.
    pub explanation: String,
    /// What proves it.
    pub evidence: Vec<Evidence>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    /// In words: they need what was known when the flow was told of.
    Told(Vec<PathStep>),
    /// As it was seen. A healthy flow's words need little more, and few ever want to read them.
    Seen(Box<Flow>),
}

impl Story {
    /// Takes what there is to tell.
    #[must_use]
    pub fn of(flow: &Flow, fate: Fate, diagnosis: &Diagnosis, facts: &Facts) -> Self {
        let way = match fate {
            Fate::Established => Way::Seen(Box::new(flow.clone())),
            _ => Way::Told(path::steps(flow, facts)),
        };
        let since = |attempt: &crate::flow::model::Attempt| attempt.time_ns.saturating_sub(flow.start_ns());
        Self {
            netns: flow.netns,
            syns_ns: flow.attempts.iter().map(since).collect(),
            synacks: flow.synacks,
            explanation: diagnosis.explanation.clone(),
            evidence: diagnosis.evidence.clone(),
            way,
        }
    }

    /// Its way, step by step.
    #[must_use]
    pub fn steps(&self) -> Cow<'_, [PathStep]> {
        match &self.way {
            Way::Told(steps) => Cow::Borrowed(steps),
            Way::Seen(flow) => Cow::Owned(path::steps(flow, &Facts::default())),
        }
    }

    /// How much of the store it takes, in steps.
    #[must_use]
    pub fn weight(&self) -> usize {
        1 + self.evidence.len()
            + match &self.way {
                Way::Told(steps) => steps.len(),
                Way::Seen(flow) => flow.steps.len(),
            }
    }
}
