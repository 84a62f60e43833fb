//! Flows as a Parquet table for DuckDB, pandas and other tools: one row per flow.
//!
//! A flow that changes is reported again, and its last row is the one that counts. So a row is held until the flow cannot
//! change any more. At most [`MOST_HELD`] bytes are held: beyond that the rows closest to completion are written early, and
//! a flow that changes after that gets a second row with a higher `told`. Complete rows are collected into row groups, which
//! are bounded too.

mod columns;
mod row;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use serde::Serialize;

use self::row::Row;
use crate::{
    finding::{
        Finding,
        clock::rfc3339,
        head::Head,
        run::{End, Health},
    },
    flow::engine,
};

/// The most bytes of rows held, approximately.
const MOST_HELD: usize = 64 << 20;
/// The most bytes of a row group, approximately, and the most rows.
const MOST_GROUP: usize = 32 << 20;
const MOST_ROWS: usize = 1 << 17;
/// Longest text in the statistics of a row group.
const MOST_STATISTICS: usize = 64;
/// Schema version of the flow object with the same members.
const SCHEMA: u32 = 1;

/// A run of the recorder, as the file's metadata lists it.
#[derive(Debug, Default, Serialize)]
struct Run {
    #[serde(rename = "run")]
    number: u32,
    host: String,
    boot_id: String,
    kernel: String,
    /// The version that recorded it.
    tracer: String,
    start: String,
    events: u64,
    lost: u64,
    lost_by_hook: BTreeMap<String, u64>,
}

/// A row that may still change.
#[derive(Debug)]
struct Held {
    row: Row,
    weight: usize,
    /// Time after which it cannot change any more, in monotonic nanoseconds.
    until_ns: u64,
}

/// Writes flows as a Parquet table.
pub struct Table<W: Write + Send> {
    out: SerializedFileWriter<W>,
    /// The runs so far, with the current one last.
    runs: Vec<Run>,
    /// Rows that may change, by flow.
    held: BTreeMap<u64, Held>,
    /// The same flows by the time after which they cannot change, in monotonic nanoseconds.
    until: BTreeSet<(u64, u64)>,
    /// Bytes of the rows held, and their limit.
    weight: usize,
    most_held: usize,
    /// Rows of the next row group, and their bytes.
    ready: Vec<Row>,
    ready_weight: usize,
    most_group: usize,
    /// The number of reports of each flow, and whether it has a row in the file.
    reports: BTreeMap<u64, (u32, bool)>,
    /// The most flows in `reports`.
    most_reports: usize,
    /// The time up to which flows were judged, in monotonic nanoseconds.
    judged_ns: u64,
    superseded: u64,
}

impl<W: Write + Send> Table<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> io::Result<Self> {
        let schema = parse_message_type(columns::SCHEMA).map_err(error)?;
        let properties = WriterProperties::builder()
            .set_created_by(format!("tracer {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            // Statistics of each page would stay in memory until the end.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_statistics_truncate_length(Some(MOST_STATISTICS))
            .set_offset_index_disabled(true)
            .build();
        Ok(Self {
            out: SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(error)?,
            runs: Vec::new(),
            held: BTreeMap::new(),
            until: BTreeSet::new(),
            weight: 0,
            most_held: MOST_HELD,
            ready: Vec::new(),
            ready_weight: 0,
            most_group: MOST_GROUP,
            reports: BTreeMap::new(),
            most_reports: 2 * engine::Limits::default().flows,
            judged_ns: 0,
            superseded: 0,
        })
    }

    /// Sets other limits in bytes, for rows held and for a row group.
    #[must_use]
    pub fn with_bounds(mut self, held: usize, group: usize) -> Self {
        self.most_held = held;
        self.most_group = group;
        self
    }

    /// Starts the next run.
    pub fn begin(&mut self, head: &Head) -> io::Result<()> {
        self.settle()?;
        self.reports.clear();
        self.most_reports = head.limits.bounded().flows.saturating_mul(2);
        self.judged_ns = 0;
        self.runs.push(Run {
            number: self.run() + 1,
            host: head.host.clone(),
            boot_id: head.boot_id.clone(),
            kernel: head.kernel.clone(),
            tracer: head.tracer.clone(),
            start: rfc3339(head.ready),
            ..Run::default()
        });
        Ok(())
    }

    /// Flows are about to be judged at this time, in monotonic nanoseconds.
    pub fn now(&mut self, now_ns: u64) -> io::Result<()> {
        // Every change up to that time has been reported.
        let judged_ns = std::mem::replace(&mut self.judged_ns, now_ns);
        while let Some(&(until_ns, id)) = self.until.first()
            && until_ns < judged_ns
        {
            self.release(id)?;
        }
        Ok(())
    }

    /// Adds a flow in place of its last report. A flow that is not selected loses its row.
    pub fn add(&mut self, finding: &Finding<'_>, is_selected: bool) -> io::Result<()> {
        let flow = finding.flow;
        if self.runs.is_empty() {
            return Ok(());
        }
        if let Some(before) = self.held.remove(&flow.id) {
            self.until.remove(&(before.until_ns, flow.id));
            self.weight -= before.weight;
        }
        let (reports, is_written) = self.reports.entry(flow.id).or_default();
        *reports += 1;
        let report = *reports;
        // A row that is in the file already must not look like the last one.
        if !is_selected && !*is_written {
            return Ok(());
        }
        let row = Row::new(self.run(), report, finding);
        let weight = row.weight();
        let until_ns = engine::settled_ns(flow);
        self.weight += weight;
        self.until.insert((until_ns, flow.id));
        self.held.insert(
            flow.id,
            Held {
                row,
                weight,
                until_ns,
            },
        );
        self.forget();
        while self.weight > self.most_held
            && let Some(&(_, id)) = self.until.first()
        {
            self.release(id)?;
        }
        Ok(())
    }

    /// Records were lost.
    pub fn lost(&mut self, health: &Health) {
        if let Some(run) = self.runs.last_mut() {
            run.lost_by_hook = health.lost_by_hook.iter().cloned().collect();
        }
    }

    /// Ends the run with its counters.
    pub fn end(&mut self, end: &End) {
        if let Some(run) = self.runs.last_mut() {
            (run.events, run.lost) = (end.events, end.lost);
        }
    }

    /// Writes the rest and the schema. Returns the number of rows that are not the last of their flow.
    pub fn close(mut self) -> io::Result<u64> {
        self.settle()?;
        let names = |of: fn(&Run) -> &str| {
            let names: BTreeSet<&str> = self.runs.iter().map(of).collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        };
        let lost = self
            .runs
            .iter()
            .fold(0, |sum: u64, run| sum.saturating_add(run.lost));
        for (key, value) in [
            ("tracer.schema", SCHEMA.to_string()),
            ("tracer.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("tracer.host", names(|run| &run.host)),
            ("tracer.kernel", names(|run| &run.kernel)),
            ("tracer.lost", lost.to_string()),
            ("tracer.superseded", self.superseded.to_string()),
            ("tracer.runs", serde_json::to_string(&self.runs)?),
        ] {
            self.out
                .append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.out.close().map_err(error)?;
        Ok(self.superseded)
    }

    fn run(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.number)
    }

    /// Moves a row to the next row group.
    fn release(&mut self, id: u64) -> io::Result<()> {
        let Some(Held {
            row,
            weight,
            until_ns,
        }) = self.held.remove(&id)
        else {
            return Ok(());
        };
        self.until.remove(&(until_ns, id));
        self.weight -= weight;
        if let Some((_, is_written)) = self.reports.get_mut(&id) {
            self.superseded += u64::from(*is_written);
            *is_written = true;
        }
        self.ready_weight += weight;
        self.ready.push(row);
        if self.ready_weight >= self.most_group || self.ready.len() >= MOST_ROWS {
            self.group()?;
        }
        Ok(())
    }

    /// Moves all rows of the run to row groups, and writes them.
    fn settle(&mut self) -> io::Result<()> {
        while let Some(&(_, id)) = self.until.first() {
            self.release(id)?;
        }
        self.group()
    }

    /// Writes a row group.
    fn group(&mut self) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.ready);
        self.ready_weight = 0;
        let Some(run) = self.runs.last().filter(|_| !rows.is_empty()) else {
            return Ok(());
        };
        rows.sort_by_key(|row| (row.start_ns, row.id));
        let mut group = self.out.next_row_group().map_err(error)?;
        columns::write(&mut group, (&run.host, &run.boot_id), &rows).map_err(error)?;
        group.close().map_err(error)?;
        Ok(())
    }

    /// Forgets the oldest flows: the engine keeps half as many, and rarely the oldest.
    fn forget(&mut self) {
        while self.reports.len() > self.most_reports {
            self.reports.pop_first();
        }
    }
}

/// The underlying I/O error, if there is one.
fn error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}
