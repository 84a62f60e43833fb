//! How much room a recording takes, and how fast it is read:
//! `cargo bench -p tracer --bench recording -- FILE [MIB]`.
//!
//! FILE is a recording, of the lab's soak for instance (`cargo xtask lab --scenario soak --recordings FOLDER`). A long one
//! is made of it, of so many MiB (1024 unless said otherwise): the same records over and over, each time as of later and
//! of other flows.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, BufWriter},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tracer::recording::{
    item::Item,
    reader::Reader,
    writer::{ChunkBuilder, TARGET_CHUNK_LEN, Writer},
};

const TRACER: &str = env!("CARGO_BIN_EXE_tracer");

/// Where a record has its time and the number of its flow (`tracer_common::record::Header`).
const TIME: std::ops::Range<usize> = 0..8;
const FLOW: std::ops::Range<usize> = 8..16;
/// The bits of a flow's number that count; those above are the CPU's.
const NUMBER: u64 = (1 << 48) - 1;
/// Between the end of one repetition and the beginning of the next: whatever was remembered is forgotten.
const PAUSE_NS: u64 = 200_000_000_000;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(file) = arguments.next() else {
        // `cargo test --benches` and the like.
        eprintln!("usage: cargo bench -p tracer --bench recording -- FILE [MIB]");
        return Ok(());
    };
    // cargo runs this in the package's folder, and whoever asks is in the workspace's.
    let file = [PathBuf::from(&file), Path::new("..").join(&file)]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("there is no file {file}"))?;
    let mib: u64 = match arguments.next() {
        Some(mib) => mib
            .parse()
            .with_context(|| format!("{mib} is no number of MiB"))?,
        None => 1024,
    };
    let records = size(&file)?;
    for format in ["jsonl", "pcapng"] {
        let bytes = count(tracer(&["export", "--to", format], &file))?;
        println!(
            "  as {format}: {}, {:.1} times as much",
            mb(bytes),
            ratio(bytes, fs::metadata(&file)?.len())
        );
    }
    report(&file, records)?;

    let long = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("long.trace");
    repeat(&file, &long, mib << 20)?;
    let records = size(&long)?;
    report(&long, records)?;
    fs::remove_file(&long)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", ratio(bytes, 1_000_000))
}

/// Says how large the recording is, and gives how many records it has.
fn size(file: &Path) -> Result<u64> {
    let mut reader = Reader::new(BufReader::new(File::open(file)?))?;
    let (mut records, mut raw) = (0, 0);
    while let Some(log) = reader.next_log()? {
        for item in log.items().flatten() {
            if let Item::Record(bytes) = item {
                records += 1;
                raw += bytes.len() as u64;
            }
        }
    }
    let bytes = fs::metadata(file)?.len();
    println!(
        "{}: {}, {records} records, {:.1} bytes each; as they came from the kernel {}",
        file.display(),
        mb(bytes),
        ratio(bytes, records),
        mb(raw)
    );
    Ok(records)
}

fn tracer(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(TRACER);
    command.args(arguments).arg(file);
    command
}

/// Counts the bytes that a command prints.
fn count(mut command: Command) -> Result<u64> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run tracer")?;
    let mut out = child.stdout.take().context("tracer has no output")?;
    let bytes = std::io::copy(&mut out, &mut std::io::sink())?;
    ensure!(child.wait()?.success(), "tracer failed");
    Ok(bytes)
}

/// Says how long `report` takes, which reads all records, joins them to flows and finds the cause of each.
fn report(file: &Path, records: u64) -> Result<()> {
    let began = Instant::now();
    let mut child = tracer(&["report"], file).stdout(Stdio::piped()).spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("tracer has no output")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    let first: Duration = began.elapsed();
    std::io::copy(&mut out, &mut std::io::sink())?;
    ensure!(child.wait()?.success(), "tracer failed");
    println!(
        "  report: the first line after {:.2} s: {:.0} records a second from file to causes",
        first.as_secs_f64(),
        ratio(records, 1) / first.as_secs_f64()
    );
    Ok(())
}

/// Writes the records of one recording again and again, until there are so many bytes.
fn repeat(file: &Path, long: &Path, bytes: u64) -> Result<()> {
    let mut writer = None;
    let mut shift = Shift::default();
    let mut next_flow = 1;
    for round in 0.. {
        let mut reader = Reader::new(BufReader::new(File::open(file)?))?;
        if writer.is_none() {
            writer = Some(Writer::new(BufWriter::new(File::create(long)?), reader.head())?);
        }
        let Some(writer) = &mut writer else { break };
        let mut builder = ChunkBuilder::new(next_flow);
        let (mut last_ns, mut last_number, mut flows) = (0, 0, 0);
        while let Some(log) = reader.next_log()? {
            flows = flows.max(log.header.next_flow);
            for item in log.items().flatten() {
                match item {
                    Item::Record(record) => {
                        let mut record = record.to_vec();
                        let time = shift.time(&mut record[TIME]);
                        let number = shift.flow(&mut record[FLOW]);
                        last_ns = last_ns.max(time);
                        last_number = last_number.max(number);
                        builder.add(&Item::Record(&record));
                    }
                    Item::Tick(now_ns) => builder.add(&Item::Tick(now_ns + shift.time_ns)),
                    // What was known of the node the first time is known still.
                    Item::Facts(_) | Item::Hooks(_) if round > 0 => {}
                    Item::Health(_) | Item::End(_) => {}
                    other => builder.add(&other),
                }
                if builder.len() >= TARGET_CHUNK_LEN {
                    writer.write(&builder.seal(next_flow)?)?;
                }
            }
        }
        shift = Shift {
            time_ns: last_ns + PAUSE_NS - reader.head().monotonic_ns,
            number: last_number,
        };
        next_flow += flows;
        writer.write(&builder.seal(next_flow)?)?;
        if writer.written() >= bytes {
            break;
        }
    }
    if let Some(writer) = writer {
        writer.finish()?;
    }
    Ok(())
}

/// By how much a repetition is later, and its flows' numbers are higher.
#[derive(Default)]
struct Shift {
    time_ns: u64,
    number: u64,
}

impl Shift {
    fn time(&self, bytes: &mut [u8]) -> u64 {
        change(bytes, |time| time + self.time_ns)
    }

    /// Flow 0 is none.
    fn flow(&self, bytes: &mut [u8]) -> u64 {
        change(bytes, |flow| if flow == 0 { 0 } else { flow + self.number }) & NUMBER
    }
}

fn change(bytes: &mut [u8], by: impl FnOnce(u64) -> u64) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    let changed = by(u64::from_le_bytes(word));
    bytes.copy_from_slice(&changed.to_le_bytes());
    changed
}
