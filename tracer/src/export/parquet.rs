//! Flows as a table for DuckDB, pandas and whatever else reads Parquet: one row a flow.
//!
//! A flow that changes is told of again, and its last row is the one that a table must have. So rows wait until nothing
//! can change them any more. What waits is bounded ([`MOST_WAITING`]): beyond that the oldest are written sooner, and
//! one that changes after that gets a second row, with a higher number in `told`. Rows that are ready wait until they
//! are enough for a row group, which is bounded too.

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
    diagnose::Diagnosis,
    facts::Facts,
    finding::{
        clock::{Clock, rfc3339},
        head::Head,
        run::{End, Health},
    },
    flow::{
        engine::{self, MOST_FLOWS},
        fate::Fate,
        model::Flow,
    },
};

/// Bytes of rows that wait, about.
const MOST_WAITING: usize = 64 << 20;
/// Bytes of rows that make a row group, about, and how many rows at most.
const MOST_GROUP: usize = 32 << 20;
const MOST_ROWS: usize = 1 << 17;
/// Longest text of which the statistics of a row group tell.
const MOST_STATISTICS: usize = 64;
/// Version of the flow object that the columns mirror.
const SCHEMA: u32 = 1;

/// A run of the recorder, as the file's metadata tells of it.
#[derive(Debug, Default, Serialize)]
struct Run {
    #[serde(rename = "run")]
    number: u32,
    host: String,
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
struct Waiting {
    row: Row,
    weight: usize,
    /// The moment after which it does not any more, monotonic nanoseconds.
    until_ns: u64,
}

/// See the module.
pub struct Table<W: Write + Send> {
    out: SerializedFileWriter<W>,
    clock: Option<Clock>,
    /// Those that are over, and the one that is told of.
    runs: Vec<Run>,
    /// Rows that may change, by flow.
    waiting: BTreeMap<u64, Waiting>,
    /// The same by the moment after which they do not.
    until: BTreeSet<(u64, u64)>,
    /// What those weigh, and what they may.
    weight: usize,
    most_waiting: usize,
    /// Rows of the next row group, and what they weigh.
    ready: Vec<Row>,
    ready_weight: usize,
    most_group: usize,
    /// How often each flow was told of, and whether it has a row in the file.
    told: BTreeMap<u64, (u32, bool)>,
    /// The moment up to which flows were asked for their fates.
    asked_ns: u64,
    superseded: u64,
}

impl<W: Write + Send> Table<W> {
    /// Writes to `out`, which had better be buffered.
    pub fn new(out: W) -> io::Result<Self> {
        let schema = parse_message_type(columns::SCHEMA).map_err(error)?;
        let properties = WriterProperties::builder()
            .set_created_by(format!("tracer {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            // Statistics of each page would take memory until the end.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_statistics_truncate_length(Some(MOST_STATISTICS))
            .set_offset_index_disabled(true)
            .build();
        Ok(Self {
            out: SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(error)?,
            clock: None,
            runs: Vec::new(),
            waiting: BTreeMap::new(),
            until: BTreeSet::new(),
            weight: 0,
            most_waiting: MOST_WAITING,
            ready: Vec::new(),
            ready_weight: 0,
            most_group: MOST_GROUP,
            told: BTreeMap::new(),
            asked_ns: 0,
            superseded: 0,
        })
    }

    /// The same with other bounds in bytes, for what waits and for a row group.
    #[must_use]
    pub fn with_bounds(mut self, waiting: usize, group: usize) -> Self {
        self.most_waiting = waiting;
        self.most_group = group;
        self
    }

    /// Begins with the flows of another run.
    pub fn begin(&mut self, head: &Head) -> io::Result<()> {
        self.settle()?;
        self.clock = Some(Clock::new(head.wall, head.monotonic_ns));
        self.told.clear();
        self.asked_ns = 0;
        self.runs.push(Run {
            number: self.run() + 1,
            host: head.host.clone(),
            kernel: head.kernel.clone(),
            tracer: head.tracer.clone(),
            start: rfc3339(head.ready),
            ..Run::default()
        });
        Ok(())
    }

    /// Flows are about to be asked for their fates at this moment.
    pub fn now(&mut self, now_ns: u64) -> io::Result<()> {
        // Up to here nothing changed but what was told of.
        let asked_ns = std::mem::replace(&mut self.asked_ns, now_ns);
        while let Some(&(until_ns, id)) = self.until.first()
            && until_ns < asked_ns
        {
            self.release(id)?;
        }
        Ok(())
    }

    /// Takes what was told of a flow in place of what was told of it before. One that is not `wanted` loses its row.
    pub fn add(
        &mut self,
        flow: &Flow,
        fate: Fate,
        diagnosis: &Diagnosis,
        facts: &Facts,
        wanted: bool,
    ) -> io::Result<()> {
        let Some(clock) = self.clock else {
            return Ok(());
        };
        if let Some(before) = self.waiting.remove(&flow.id) {
            self.until.remove(&(before.until_ns, flow.id));
            self.weight -= before.weight;
        }
        let (told, is_written) = self.told.entry(flow.id).or_default();
        *told += 1;
        // The row that is written already must not be the last one.
        if !wanted && !*is_written {
            return Ok(());
        }
        let row = Row::new(
            (self.run(), self.told[&flow.id].0),
            (flow, fate),
            diagnosis,
            facts,
            &clock,
        );
        let weight = row.weight();
        let until_ns = engine::settled_ns(flow);
        self.weight += weight;
        self.until.insert((until_ns, flow.id));
        self.waiting.insert(
            flow.id,
            Waiting {
                row,
                weight,
                until_ns,
            },
        );
        self.forget();
        while self.weight > self.most_waiting
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

    /// The run ended like this.
    pub fn end(&mut self, end: &End) {
        if let Some(run) = self.runs.last_mut() {
            (run.events, run.lost) = (end.events, end.lost);
        }
    }

    /// Writes what is left, and what readers need to read it. Says how many rows are not the last of their flow.
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

    /// This row does not wait any more.
    fn release(&mut self, id: u64) -> io::Result<()> {
        let Some(Waiting {
            row,
            weight,
            until_ns,
        }) = self.waiting.remove(&id)
        else {
            return Ok(());
        };
        self.until.remove(&(until_ns, id));
        self.weight -= weight;
        if let Some((_, is_written)) = self.told.get_mut(&id) {
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

    /// Nothing more is told of the flows of this run.
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
        columns::write(&mut group, &run.host, &rows).map_err(error)?;
        group.close().map_err(error)?;
        Ok(())
    }

    /// Of so many flows as the engine knows at a time, the oldest are not told of again.
    fn forget(&mut self) {
        let newest = self.told.last_key_value().map_or(0, |(&id, _)| id);
        let most = u64::try_from(MOST_FLOWS).unwrap_or(u64::MAX);
        while let Some(entry) = self.told.first_entry()
            && newest - entry.key() > most
        {
            entry.remove();
        }
    }
}

/// The system's own words where it failed.
fn error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}
