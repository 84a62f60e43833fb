//! Exit statuses, and the line on stderr that goes with them.

use std::process::ExitCode;

use crate::{
    diagnose::words::count,
    finding::{outcome::Outcome, totals::Totals},
    pipeline::error::PipelineError,
    tui::observer::TerminalError,
};

/// Why a command ended early, by exit status.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// The arguments contradict each other. Clap reports all other wrong arguments.
    #[error("{0}")]
    Usage(String),
    /// Flows matched `--fail-on`.
    #[error("{0}")]
    FailOn(String),
    /// This kernel cannot trace.
    #[error("{0}")]
    Unsupported(String),
    /// A privilege is missing.
    #[error("{0}")]
    Privilege(String),
    /// The reader closed the output: the command ends quietly.
    #[error("the output was closed")]
    ClosedPipe,
}

impl Failure {
    /// The documented exit status.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ClosedPipe => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::FailOn(_) => 3,
            Self::Unsupported(_) => 69,
            Self::Privilege(_) => 77,
        })
    }

    /// Whether the command ends without a message.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        matches!(self, Self::ClosedPipe)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if matches!(error.get_ref(), Some(inner) if inner.is::<TerminalError>()) {
            Self::Failed(error.into())
        } else if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Failed(anyhow::Error::from(error).context("cannot write the output"))
        }
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        match error {
            PipelineError::Output(error) => error.into(),
            PipelineError::Unsupported(why) => Self::Unsupported(why),
            PipelineError::Privilege(why) => Self::Privilege(why),
            PipelineError::Failed(error) => Self::Failed(error),
        }
    }
}

/// Fails if a flow matched `--fail-on`.
pub(super) fn fail_on(outcomes: &[Outcome], totals: &Totals) -> Result<(), Failure> {
    match totals.matching(outcomes) {
        0 => Ok(()),
        flows => {
            let words: Vec<String> = outcomes.iter().map(ToString::to_string).collect();
            Err(Failure::FailOn(format!(
                "{} matched --fail-on {}",
                count(flows, "flow"),
                words.join(",")
            )))
        }
    }
}
