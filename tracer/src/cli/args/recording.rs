//! Options of commands that read recordings.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{
    screen::ScreenOptions,
    select::Select,
    value::{WordParser, size},
};
use crate::finding::outcome::Outcome;

/// Options of `replay`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ReplayOptions {
    /// Recordings of one or several runs; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print one line per flow, the default without a terminal
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// Print one JSON object per line, schema 1
    #[arg(long)]
    pub json: bool,
    /// Print path, evidence and advice below each line
    #[arg(short, long)]
    pub verbose: bool,
    /// The look of the screen.
    #[command(flatten)]
    pub screen: ScreenOptions,
    /// The flows to show.
    #[command(flatten)]
    pub select: Select,
    /// Exit with status 3 if a flow matched
    #[arg(
        long,
        help_heading = "End",
        value_name = "OUTCOME",
        value_delimiter = ',',
        value_parser = WordParser::<Outcome>::new(),
        hide_possible_values = true
    )]
    pub fail_on: Vec<Outcome>,
    /// Memory for reading
    #[arg(long, help_heading = "Limits", value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub max_memory: u64,
}

/// Options of `report`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ReportOptions {
    /// Recordings of one or several nodes; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write one HTML page for the ticket; - for standard output
    #[arg(long, value_name = "OUT", conflicts_with = "json")]
    pub html: Option<PathBuf>,
    /// Replace an existing recording or another user's file
    #[arg(long, requires = "html")]
    pub force: bool,
    /// The flows to report.
    #[command(flatten)]
    pub select: Select,
    /// Memory for reading
    #[arg(long, help_heading = "Limits", value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub max_memory: u64,
}

/// Options of `show`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ShowOptions {
    /// The recording, then others that may hold the same connection
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The flow's number in the first recording
    #[arg(required = true, value_name = "ID", value_parser = flow_number)]
    pub id: u64,
    /// Memory for reading
    #[arg(long, help_heading = "Limits", value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub max_memory: u64,
}

fn flow_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        "the last argument must be a flow number, for example `tracer show a.trace 17`".to_owned()
    })
}

/// Options of `export`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ExportOptions {
    /// Recordings of one or several runs; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Export format: jsonl, pcapng or parquet
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub to: Format,
    /// File to write; standard output if omitted or -
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an existing recording or another user's file
    #[arg(long, requires = "output")]
    pub force: bool,
    /// The flows to export.
    #[command(flatten)]
    pub select: Select,
    /// Memory for reading
    #[arg(long, help_heading = "Limits", value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub max_memory: u64,
}

/// Export formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON lines, schema 1, as `live --json` prints them
    Jsonl,
    /// Packets at each hook, for Wireshark
    Pcapng,
    /// One row per flow, for DuckDB and pandas
    Parquet,
}
