//! The attempts of a flow, a line each.

use crate::{
    diagnose::{Attempt, Diagnosis},
    finding::clock::milliseconds,
};

/// The cost and cause of one SYN.
#[derive(Clone, Debug)]
pub struct AttemptLine {
    /// The SYN: `SYN 1:`.
    pub title: String,
    /// The rest of the line.
    pub text: String,
}

impl std::fmt::Display for AttemptLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.title, self.text)
    }
}

/// A line for each SYN that the client sent, if there are several: what it cost, and why. The explanation that the flow has
/// already is not repeated.
#[must_use]
pub fn lines(diagnosis: &Diagnosis) -> Vec<AttemptLine> {
    match &diagnosis.attempts[..] {
        [] | [_] => Vec::new(),
        attempts => attempts
            .iter()
            .map(|attempt| line(attempt, &diagnosis.explanation))
            .collect(),
    }
}

fn line(attempt: &Attempt, flow: &str) -> AttemptLine {
    let lost = (attempt.lost_ns > 0).then(|| format!("{:.0} ms lost.", milliseconds(attempt.lost_ns)));
    let cause = attempt.cause.map(|cause| format!("{cause}."));
    let inner = attempt.inner.map(|inner| format!("Inner cause: {inner}."));
    let explanation = (attempt.explanation != flow).then(|| attempt.explanation.clone());
    let parts: Vec<String> = [lost, cause, inner, explanation].into_iter().flatten().collect();
    AttemptLine {
        title: format!("SYN {}:", attempt.number),
        text: parts.join(" "),
    }
}
