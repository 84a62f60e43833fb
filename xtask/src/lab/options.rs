//! How guests run.

use std::path::PathBuf;

use tracer_lab::protocol::Terminal;
use tracer_lab::vm::kernels::Build;

/// How guests run; the default checks tracer's output and keeps nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// tracer prints its plain lines, and only the traffic is checked.
    pub(crate) demo: bool,
    /// tracer does not run, and only the traffic is checked.
    pub(crate) without_tracer: bool,
    /// The depth at which tracer runs, where a scenario names none.
    pub(crate) depth: Option<String>,
    /// tracer shows its screen on this terminal, and nothing is checked.
    pub(crate) screen: Option<Terminal>,
    /// Print everything.
    pub(crate) verbose: bool,
    /// The folder for tracer's recordings.
    pub(crate) recordings: Option<PathBuf>,
    /// The Debian build of the kernel.
    pub(crate) build: Build,
}

impl Options {
    /// Whether tracer's output is checked.
    pub(crate) fn checks_tracer(&self) -> bool {
        !self.without_tracer && !self.demo
    }
}
