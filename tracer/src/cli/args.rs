//! The command line.

mod check;
mod recording;
pub mod screen;
pub mod select;
mod tracing;
pub mod value;

use clap::{Parser, Subcommand};

pub use self::{
    check::{CheckOptions, FailOn},
    recording::{ExportOptions, Format, ReplayOptions, ReportOptions, ShowOptions},
    tracing::{HooksOptions, LiveOptions, RecordOptions},
};

/// Follow each NodePort SYN through the kernel and report what happened to it and why
#[derive(Debug, Parser)]
#[command(name = "tracer", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// The command; `live` if none is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `live`.
    #[command(flatten)]
    pub live: LiveOptions,
}

/// A subcommand with its options.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace live, on a screen or as lines; the default command
    Live(LiveOptions),
    /// Record to a file
    Record(RecordOptions),
    /// Show a recording as `live` would have shown it
    Replay(ReplayOptions),
    /// Summarise recordings: text, JSON or one HTML page
    Report(ReportOptions),
    /// Show the path of one flow, step by step
    Show(ShowOptions),
    /// Convert a recording to JSON lines, pcapng or Parquet
    Export(ExportOptions),
    /// Name hazards of this node without tracing
    Check(CheckOptions),
    /// List the hooks this kernel offers and why the others are not attached
    Hooks(HooksOptions),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
