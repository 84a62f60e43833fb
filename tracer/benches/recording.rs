//! The size of a recording, the speed at which it is read, and the memory of a pending flow:
//! `cargo bench -p tracer --bench recording -- FILE [MIB]`. `cargo xtask bench` runs it.
//!
//! FILE is a recording, for example of the lab's soak (`cargo xtask lab --scenario soak --recordings FOLDER`). The
//! benchmark makes a long one of MIB mebibytes (default: 1024) from it: the same records repeated, each time with later
//! timestamps and other flow numbers.

use std::{
    env,
    fs::{self, File},
    io::{BufReader, BufWriter, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use tracer::{
    decode::{event::Event, record},
    flow::engine::{Engine, Limits},
    recording::{
        item::Item,
        reader::Reader,
        writer::{ChunkBuilder, TARGET_CHUNK_LEN, Writer},
    },
};
use tracer_common::tcp::Part;

const TRACER: &str = env!("CARGO_BIN_EXE_tracer");

/// Byte ranges of a record's time and flow number (`tracer_common::record::Header`).
const TIME: std::ops::Range<usize> = 0..8;
const FLOW: std::ops::Range<usize> = 8..16;
/// The bits that hold the flow number; those above hold the CPU.
const NUMBER: u64 = (1 << 48) - 1;
/// The number of flows over which memory is averaged.
const PENDING_FLOWS: u32 = 50_000;
/// Time between two repetitions, long enough for the engine to forget every flow.
const PAUSE_NS: u64 = 200_000_000_000;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(file) = arguments.next() else {
        // `cargo test --benches` and the like.
        eprintln!("usage: cargo bench -p tracer --bench recording -- FILE [MIB]");
        return Ok(());
    };
    // cargo runs this in the package's folder; paths on the command line are relative to the workspace.
    let file = [PathBuf::from(&file), Path::new("..").join(&file)]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("no file {file}"))?;
    let mib: u64 = match arguments.next() {
        Some(mib) => mib
            .parse()
            .with_context(|| format!("{mib} is not a number of MiB"))?,
        None => 1024,
    };
    size(&file)?;
    pending_flow(&file)?;
    let long = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("long.trace");
    repeat(&file, &long, mib << 20)?;
    let records = size(&long)?;
    for (name, arguments) in [
        ("report", &["report"][..]),
        ("replay --plain", &["replay", "--plain"]),
        ("replay --json", &["replay", "--json"]),
        ("export --to jsonl", &["export", "--to", "jsonl"]),
        ("export --to parquet", &["export", "--to", "parquet"]),
        ("export --to pcapng", &["export", "--to", "pcapng"]),
    ] {
        speed(name, arguments, &long, records)?;
    }
    fs::remove_file(&long)?;
    Ok(())
}

/// Prints a row of the result: name, value and unit, separated by tabs.
fn row(name: &str, value: f64, unit: &str) {
    println!("{name}\t{value:.1}\t{unit}");
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}

/// Prints the size of the recording and returns its number of records.
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
    eprintln!("{}: {records} records, {bytes} bytes", file.display());
    row("bytes a record on disk", ratio(bytes, records), "B");
    row("bytes a record from the kernel", ratio(raw, records), "B");
    Ok(records)
}

/// Prints how many records a second a command reads, and its peak memory.
fn speed(name: &str, arguments: &[&str], file: &Path, records: u64) -> Result<()> {
    let began = Instant::now();
    let mut child = Command::new(TRACER)
        .args(arguments)
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run tracer")?;
    let mut out = child.stdout.take().context("tracer has no output")?;
    let mut buffer = vec![0; 1 << 16];
    let (mut first, mut peak_kib) = (None, 0.0);
    while out.read(&mut buffer)? > 0 {
        first.get_or_insert_with(|| began.elapsed());
        let peak = status(&format!("/proc/{}/status", child.id()), "VmHWM:");
        peak_kib = peak.unwrap_or(peak_kib).max(peak_kib);
    }
    ensure!(child.wait()?.success(), "tracer {} failed", arguments.join(" "));
    // A report comes at its end.
    let took = match name {
        "report" => first.unwrap_or_else(|| began.elapsed()),
        _ => began.elapsed(),
    };
    row(
        name,
        ratio(records, 1_000_000) / took.as_secs_f64(),
        "M records/s",
    );
    if peak_kib > 0.0 {
        row(&format!("{name}, peak memory"), peak_kib / 1024.0, "MiB");
    }
    Ok(())
}

/// A number in a file like `/proc/PID/status`.
fn status(path: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Prints the memory of a flow whose fate is not known yet: the way of its SYN up to the listener.
fn pending_flow(file: &Path) -> Result<()> {
    let mut reader = Reader::new(BufReader::new(File::open(file)?))?;
    let version = reader.header_version();
    let mut syn: Vec<Event> = Vec::new();
    while let Some(log) = reader.next_log()? {
        for item in log.items().flatten() {
            let Item::Record(bytes) = item else { continue };
            let Ok(event) = record::event(version, bytes) else {
                continue;
            };
            let begins = syn.first().is_none_or(|first| first.flow == event.flow);
            if begins && event.flow != 0 && event.part == Part::Syn {
                syn.push(event);
            }
        }
    }
    let client = syn.first().context("the recording has no SYN")?.tuple;
    let resident = || status("/proc/self/status", "VmRSS:").context("cannot read the resident memory");
    let mut engine = Engine::new(
        3_000_000_000,
        Limits {
            flows: usize::MAX,
            bytes: usize::MAX,
        },
    );
    let before = resident()?;
    for number in 0..PENDING_FLOWS {
        for event in &syn {
            let mut event = event.clone();
            event.flow = u64::from(number) + 1;
            if event.tuple == client {
                event.tuple.saddr.0[3] ^= number;
            }
            engine.push(event);
        }
    }
    let kib = resident()? - before;
    drop(engine);
    row("steps of a pending flow", ratio(syn.len() as u64, 1), "");
    row(
        "bytes a pending flow",
        kib * 1024.0 / f64::from(PENDING_FLOWS),
        "B",
    );
    Ok(())
}

/// Writes the records of one recording over and over until the new one has this many bytes.
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
                    // The node's facts from the first round still apply.
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

/// The offset of a repetition: of its times and of its flow numbers.
#[derive(Default)]
struct Shift {
    time_ns: u64,
    number: u64,
}

impl Shift {
    fn time(&self, bytes: &mut [u8]) -> u64 {
        change(bytes, |time| time + self.time_ns)
    }

    /// Flow 0 means no flow.
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
