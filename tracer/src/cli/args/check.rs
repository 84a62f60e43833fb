//! Options of `check`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

/// Options of `check`.
#[derive(Clone, Debug, ClapArgs)]
pub struct CheckOptions {
    /// Print evidence and advice, and the hazards that are fine
    #[arg(short, long)]
    pub verbose: bool,
    /// Print one JSON object, schema 1
    #[arg(long)]
    pub json: bool,
    /// The node's root directory, if it is not /
    #[arg(long, value_name = "DIR")]
    pub host_root: Option<PathBuf>,
    /// Exit with status 3 if a hazard hurts, or is at least armed
    #[arg(long, value_name = "hurts|armed", hide_possible_values = true)]
    pub fail_on: Option<FailOn>,
}

/// The state of `--fail-on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Connections suffer now
    Hurts,
    /// Connections will suffer under a named condition
    Armed,
}
