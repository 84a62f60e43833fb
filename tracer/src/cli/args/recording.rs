//! Options of commands that read recordings.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

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

/// Options of `diff`.
#[derive(Clone, Debug, ClapArgs)]
pub struct DiffOptions {
    /// The recording made before the change
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The recording made after it
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write one HTML page; - for standard output
    #[arg(long, value_name = "OUT", conflicts_with = "json")]
    pub html: Option<PathBuf>,
    /// Replace an existing recording or another user's file
    #[arg(long, requires = "html")]
    pub force: bool,
    /// The flows to compare.
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
    /// The flow in the first recording: its number, or CLIENT:PORT
    #[arg(required = true, value_name = "FLOW")]
    pub flow: FlowName,
    /// Memory for reading
    #[arg(long, help_heading = "Limits", value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub max_memory: u64,
}

/// A flow of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowName {
    /// By its number.
    Number(u64),
    /// By its client's address and port; a client may use one port for several flows.
    Client(SocketAddr),
}

impl FromStr for FlowName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('#').unwrap_or(text);
        let number = number.parse().map(Self::Number);
        number.or_else(|_| text.parse().map(Self::Client)).map_err(|_| {
            "the last argument must be a flow number such as 17, or a client such as 10.0.0.2:40001"
                .to_owned()
        })
    }
}

impl fmt::Display for FlowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => write!(f, "flow {id}"),
            Self::Client(client) => write!(f, "flow from {client}"),
        }
    }
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
