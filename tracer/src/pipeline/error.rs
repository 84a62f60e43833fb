//! Why a run could not start, or ended early.

use std::io;

/// The reason why a run could not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// An observer could not write its output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// This kernel cannot trace. The text names what is missing and what to do instead.
    #[error("{0}")]
    Unsupported(String),
    /// A privilege is missing. The text names it.
    #[error("{0}")]
    Privilege(String),
    /// Anything else.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl From<io::Error> for PipelineError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
