//! One flow with its verdict.

use super::clock::Clock;
use crate::{
    diagnose::{self, Diagnosis},
    facts::Facts,
    flow::{fate::Fate, model::Flow},
};

/// A flow with its fate and cause, and what is needed to describe it.
#[derive(Clone, Copy, Debug)]
pub struct Finding<'a> {
    /// The flow, with its steps.
    pub flow: &'a Flow,
    /// Its fate so far.
    pub fate: Fate,
    /// The cause, with the evidence.
    pub diagnosis: &'a Diagnosis,
    /// The facts about the node.
    pub facts: &'a Facts,
    /// The clock of the run that saw it.
    pub clock: &'a Clock,
}

impl Finding<'_> {
    /// Whether the connection failed, was delayed, or was misdirected.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        diagnose::is_failure(self.fate, self.diagnosis.cause)
    }

    /// The time that the flow cost its client, nanoseconds: that of all its SYNs.
    #[must_use]
    pub fn lost_ns(&self) -> u64 {
        self.diagnosis.lost_ns()
    }

    /// The service that the flow is for, as `NAMESPACE/NAME`, if a rule names it.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.facts.service(self.flow.netns, self.flow.node())
    }
}
