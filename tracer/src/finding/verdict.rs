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
    /// The flow.
    pub flow: &'a Flow,
    /// Its fate.
    pub fate: Fate,
    /// The cause, with the evidence.
    pub diagnosis: &'a Diagnosis,
    /// The facts about the node.
    pub facts: &'a Facts,
    /// The clock of the run that saw it.
    pub clock: &'a Clock,
}

impl Finding<'_> {
    /// Whether the connection failed, was delayed, or reached the wrong place.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        diagnose::is_failure(self.fate, self.diagnosis.cause)
    }

    /// The least time that a failed or delayed flow cost its client, in nanoseconds: for a stall the time spent on
    /// retransmissions, for a refusal the time until it arrived, for any other failure the time without an answer up to the
    /// end of tracer's patience.
    #[must_use]
    pub fn lost_ns(&self, patience_ns: u64) -> u64 {
        let flow = self.flow;
        match self.fate {
            Fate::Established | Fate::Pending => 0,
            Fate::Stalled => flow.stall_ns().unwrap_or(0),
            Fate::Refused => flow.refused_ns.unwrap_or(0).saturating_sub(flow.start_ns()),
            Fate::Dropped | Fate::Unanswered => flow
                .last_syn_ns()
                .saturating_sub(flow.start_ns())
                .saturating_add(patience_ns),
        }
    }

    /// The service that the flow is for, as `NAMESPACE/NAME`, if a rule names it.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.facts.service(self.flow.netns, self.flow.node())
    }
}
