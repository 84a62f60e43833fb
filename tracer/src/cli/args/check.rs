//! Options of `check`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::value::size;

/// Options of `check`.
#[derive(Clone, Debug, ClapArgs)]
pub struct CheckOptions {
    /// Judge the node of a recording instead of this one
    #[arg(value_name = "FILE", conflicts_with = "host_root")]
    pub file: Option<PathBuf>,
    /// Print evidence and advice, and the hazards that are fine
    #[arg(short, long)]
    pub verbose: bool,
    /// Print one JSON object, schema 1
    #[arg(long)]
    pub json: bool,
    /// Stop reading FILE when it takes this much memory
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub max_memory: u64,
    /// Try in a private network namespace whether IPVS drops reused ports
    #[arg(long = "try", conflicts_with_all = ["file", "host_root"])]
    pub try_reuse: bool,
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
