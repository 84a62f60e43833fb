//! Counts passed and failed checks.

use std::process::ExitCode;

/// How many checks passed, and which failed.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// The tally of one check.
    pub(super) fn of(name: &str, passed: bool) -> Self {
        let mut tally = Self::default();
        tally.count(name, passed);
        tally
    }

    pub(super) fn failed(&self) -> usize {
        self.failures.len()
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        if self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Counts one check.
    pub(super) fn count(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failures.push(name.to_owned());
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }
}
