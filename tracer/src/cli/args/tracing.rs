//! Options of commands that trace.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;

use super::{
    screen::ScreenOptions,
    select::Select,
    value::{WordParser, lasting, seconds, size, span},
};
use crate::{
    finding::{depth::Depth, outcome::Outcome},
    flow::engine::Limits,
};

/// Limits on the flows kept. Beyond them, single unanswered SYNs are evicted first and retransmitting clients last. Every
/// eviction is counted.
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(next_help_heading = "Limits")]
pub struct Memory {
    /// Keep at most N flows
    #[arg(long, value_name = "N", default_value_t = Limits::default().flows as u64, value_parser = clap::value_parser!(u64).range(16..=10_000_000))]
    pub max_flows: u64,
    /// Memory for flows
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub max_memory: u64,
}

impl Memory {
    pub(crate) fn limits(self) -> Limits {
        let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
        Limits {
            flows: number(self.max_flows),
            bytes: number(self.max_memory),
        }
    }
}

/// How much is watched.
#[derive(Clone, Copy, Debug, ClapArgs)]
#[command(next_help_heading = "Limits")]
pub struct DepthOptions {
    /// Hooks to attach: auto, light or full
    #[arg(long, value_name = "DEPTH", default_value = "full")]
    pub depth: Depth,
    /// Stay full after a suspicion
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = lasting)]
    pub deep_for: Duration,
}

/// When a run ends, its exit status, and what else happens with its flows.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "End")]
pub struct EndOptions {
    /// Stop after this time: 90, 15m or 2h
    #[arg(long, value_name = "TIME", value_parser = lasting)]
    pub duration: Option<Duration>,
    /// Stop after N flows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Stop at the first fate, cause, family or failed
    #[arg(
        long,
        value_name = "OUTCOME",
        value_delimiter = ',',
        value_parser = WordParser::<Outcome>::new(),
        hide_possible_values = true
    )]
    pub until: Vec<Outcome>,
    /// Exit with status 3 if a flow matched; does not stop
    #[arg(
        long,
        value_name = "OUTCOME",
        value_delimiter = ',',
        value_parser = WordParser::<Outcome>::new(),
        hide_possible_values = true
    )]
    pub fail_on: Vec<Outcome>,
    /// Run a shell command per flow, its JSON on stdin
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
}

/// Options of `live`.
#[derive(Clone, Debug, ClapArgs)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct LiveOptions {
    /// Print one line per flow, the default without a terminal
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// Print one JSON object per line, schema 1
    #[arg(long)]
    pub json: bool,
    /// Print path, evidence and advice below each line
    #[arg(short, long)]
    pub verbose: bool,
    /// Also record to this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "output")]
    pub force: bool,
    /// The look of the screen.
    #[command(flatten)]
    pub screen: ScreenOptions,
    /// The flows to trace.
    #[command(flatten)]
    pub select: Select,
    /// Report a silent flow after this long
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub patience: Duration,
    /// How much is watched.
    #[command(flatten)]
    pub depth: DepthOptions,
    /// Limits on the flows kept.
    #[command(flatten)]
    pub memory: Memory,
    /// When the run ends.
    #[command(flatten)]
    pub end: EndOptions,
}

/// Options of `record`.
#[derive(Clone, Debug, ClapArgs)]
pub struct RecordOptions {
    /// File to write; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Start a new numbered file at this size: 100MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub rotate_size: Option<u64>,
    /// Keep only the newest N rotated files
    #[arg(long, value_name = "N", requires = "rotate_size", value_parser = clap::value_parser!(u32).range(1..))]
    pub rotate_count: Option<u32>,
    /// Keep SIZE in memory; write at the end or SIGUSR1
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "rotate_size")]
    pub ring: Option<u64>,
    /// The flows to record, and those that count for `--until`.
    #[command(flatten)]
    pub select: Select,
    /// Report a silent flow after this long
    #[arg(long, help_heading = "Limits", value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub patience: Duration,
    /// How much is watched.
    #[command(flatten)]
    pub depth: DepthOptions,
    /// Limits on the flows kept.
    #[command(flatten)]
    pub memory: Memory,
    /// When the recording ends.
    #[command(flatten)]
    pub end: EndOptions,
    /// Record on after --until matched
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "5", requires = "until", help_heading = "End")]
    pub after: Duration,
}

/// Options of `hooks`.
#[derive(Clone, Debug, ClapArgs)]
pub struct HooksOptions {
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
}
