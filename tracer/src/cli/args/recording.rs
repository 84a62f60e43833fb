//! The arguments of commands that write or read recordings.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args as ClapArgs, ValueEnum as _};

use super::{Select, look::Look, seconds};
use crate::{diagnose::cause::Cause, flow::fate::Fate};

/// Options of `record`.
#[derive(Clone, Debug, ClapArgs)]
pub struct RecordOptions {
    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What to record (ports and clients), and which flows count for `--until` (all of it)
    #[command(flatten)]
    pub select: Select,
    /// Look at a flow as it stands this long after its last SYN, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub patience: Duration,
    /// End after this time, as `90`, `15m` or `2h`
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub duration: Option<Duration>,
    /// End when a flow with one of these fates or causes is seen
    #[arg(long, value_name = "FATE|CAUSE", value_delimiter = ',')]
    pub until: Vec<Until>,
    /// Go on for this long after that
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "5", requires = "until")]
    pub after: Duration,
    /// Begin a new file (FILE with a number before its ending) when one is this long, as `100MiB`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub rotate_size: Option<u64>,
    /// Keep so many of these files, the newest
    #[arg(long, value_name = "N", requires = "rotate_size", value_parser = clap::value_parser!(u32).range(1..))]
    pub rotate_count: Option<u32>,
    /// Keep the last so many bytes in memory, and write them at the end, at `--until`, and (numbered) at SIGUSR1
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "rotate_size")]
    pub ring: Option<u64>,
}

/// Options of `replay`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ReplayOptions {
    /// Recordings; several of one run are read as one, and lines of several runs, from several nodes perhaps, come by the
    /// wall clock. `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One line a flow, for people (the default where there is no terminal for a screen)
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// One JSON object a line, schema 1
    #[arg(long)]
    pub json: bool,
    /// Lines with the path, the evidence and the advice below each
    #[arg(short, long)]
    pub verbose: bool,
    /// How the screen looks
    #[command(flatten)]
    pub look: Look,
    /// What to show
    #[command(flatten)]
    pub select: Select,
    /// End with status 3 if a flow had this fate
    #[arg(long, value_name = "FATE")]
    pub fail_on: Option<Fate>,
}

/// Options of `report`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ReportOptions {
    /// Recordings; several of one run are read as one, and a connection that several nodes saw counts once. `-` is standard
    /// input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// One page for a browser, to attach to a ticket, into this file: the same with a chart, and the way of the flows
    /// that tell most. `-` is standard output
    #[arg(long, value_name = "OUT", conflicts_with = "json")]
    pub html: Option<PathBuf>,
    /// What the report is about
    #[command(flatten)]
    pub select: Select,
}

/// Options of `show`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ShowOptions {
    /// The recording; `-` is standard input. In recordings of other nodes behind it, the same connection is looked for
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The flow's number in the first recording
    #[arg(required = true, value_name = "ID", value_parser = flow_number)]
    pub id: u64,
}

fn flow_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        "behind the recordings comes the number of a flow: the screen of `tracer replay FILE` shows it, and --json has it as \
         `id`"
            .to_owned()
    })
}

/// Options of `export`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ExportOptions {
    /// Recordings; several of one run are read as one, and lines of several runs come by the wall clock. `-` is standard
    /// input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The format
    #[arg(long, value_name = "FORMAT")]
    pub to: Format,
    /// The file to write; without it, or with `-`, standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to export
    #[command(flatten)]
    pub select: Select,
}

/// Other people's formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON lines, schema 1, as `live --json` prints them
    Jsonl,
    /// Packets for Wireshark: the headers as they were at each hook, one interface a hook, and what happened there in
    /// comments, with DROP in front where a packet was discarded
    Pcapng,
    /// A table for DuckDB and pandas: one row a flow, with its evidence and its path as lists
    Parquet,
}

/// What ends a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A flow with this fate.
    Fate(Fate),
    /// A flow with this cause.
    Cause(Cause),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fate = Fate::from_str(text, false).map(Self::Fate);
        fate.or_else(|_| Cause::from_str(text, false).map(Self::Cause))
            .map_err(|_| {
                format!(
                    "`{text}` is neither a fate, such as stalled, nor a cause, such as ipvs.reuse-dropped"
                )
            })
    }
}

fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: give seconds, or such as 90s, 15m, 2h");
    let (number, unit) = match text.find(|letter: char| letter.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: give bytes, or such as 512KiB, 64MiB, 1GiB");
    let (number, unit) = match text.find(|letter: char| letter.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < SMALLEST {
        return Err(format!("{text} is too small: give at least 64KiB"));
    }
    Ok(bytes)
}

/// Less would hold hardly more than what a recording says of itself.
const SMALLEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_end_with_a_fate_or_a_cause() {
        assert_eq!("stalled".parse(), Ok(Until::Fate(Fate::Stalled)));
        assert_eq!(
            "ipvs.reuse-dropped".parse(),
            Ok(Until::Cause(Cause::IpvsReuseDropped))
        );
        assert!("bored".parse::<Until>().is_err());
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(span("90"), Ok(Duration::from_secs(90)));
        assert_eq!(span("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(span("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1g"), Ok(1 << 30));
        assert_eq!(size("65536"), Ok(65_536));
        for wrong in ["", "m", "-1", "1x", "1.2.3", "99999999999999999999"] {
            assert!(span(wrong).is_err() || wrong.len() > 10, "{wrong}");
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(size("1KiB").is_err());
    }
}
