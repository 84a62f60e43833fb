//! The command line.

mod catalogue;
mod check;
mod help;
mod recording;
pub mod screen;
pub mod select;
mod shell;
mod tracing;
pub mod value;

use clap::{Parser, Subcommand};

pub use self::{
    catalogue::CausesOptions,
    check::{CheckOptions, FailOn},
    help::{command, full_command},
    recording::{DiffOptions, ExportOptions, FlowName, Format, ReplayOptions, ReportOptions, ShowOptions},
    shell::{CompletionsOptions, ManOptions},
    tracing::{EndOptions, HooksOptions, LiveOptions, RecordOptions},
};

/// Follow each NodePort SYN through the kernel: what happened to it, and why
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
    /// Compare two recordings, before and after a change
    Diff(DiffOptions),
    /// Show the path of one flow, step by step
    Show(ShowOptions),
    /// Convert a recording to JSON lines, pcapng or Parquet
    Export(ExportOptions),
    /// Name hazards of this node without tracing
    Check(CheckOptions),
    /// List this kernel's hooks, and why others are not attached
    Hooks(HooksOptions),
    /// List the causes, or explain one
    Causes(CausesOptions),
    /// Print a completion script for a shell
    Completions(CompletionsOptions),
    /// Print a manual page
    Man(ManOptions),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }
}
