//! Differences between what happened and what was expected.

use std::fmt;

/// A difference between what happened and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The subject: an attempt, a flow, the totals.
    pub subject: String,
    /// The difference.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.what)
    }
}
