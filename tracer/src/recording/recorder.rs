//! Turns the events of a live run into the chunks of a recording.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    change,
    chunk::Chunk,
    item::{FactUpdate, Item},
    writer::{ChunkBuilder, TARGET_CHUNK_LEN},
};
use crate::{
    facts::{Facts, changed_facts::ChangedFacts},
    finding::{
        head::Head,
        run::{End, Health, Hooks},
        sink::RecordSink,
    },
    flow::begun::Begun,
};

/// Chunks are written at least this often, so that little is lost if the process is killed.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// The same while nothing happens.
const MAX_IDLE_DELAY: Duration = Duration::from_secs(10);

/// Stores the chunks of a recording.
pub trait ChunkSink {
    /// Starts the recording. Facts that are known already follow in the first chunk.
    fn begin(&mut self, head: Head) -> io::Result<()>;
    /// Stores a chunk. `after` is what is known at its end.
    fn add(&mut self, chunk: Chunk, after: &Snapshot) -> io::Result<()>;
    /// Writes what is in memory only, and continues recording. Returns the path of the file, if one was written.
    fn write_out(&mut self) -> io::Result<Option<String>>;
    /// Completes the recording.
    fn finish(&mut self) -> io::Result<()>;
    /// Bytes stored so far, in files or in memory.
    fn bytes(&self) -> u64;
}

/// The state of a recording at some point, for a file that starts there.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The facts recorded so far.
    pub facts: Facts,
    /// The flows that have begun.
    pub begun: Begun,
    /// The number of the next flow that begins.
    pub next_flow: u64,
}

/// Collects the events of a live run in chunks. After an error nothing more is recorded; [`Recorder::check`] returns it.
pub struct Recorder {
    sink: Box<dyn ChunkSink>,
    builder: ChunkBuilder,
    /// When the first item of the current chunk was added.
    chunk_started: Option<Instant>,
    /// Whether the chunk holds more than idle ticks.
    eventful: bool,
    snapshot: Snapshot,
    /// Whether the last item is a tick at which nothing happened.
    idle: bool,
    failed: Option<io::Error>,
}

/// The flow number that the kernel half gave a record: bytes 8 to 15 (`Header` of `tracer-common`).
pub(super) fn flow_of(record: &[u8]) -> Option<u64> {
    let flow = record.get(8..16)?.first_chunk().copied()?;
    Some(u64::from_le_bytes(flow))
}

impl Recorder {
    /// Records to `sink`, from [`RecordSink::begin`] on.
    #[must_use]
    pub fn new(sink: Box<dyn ChunkSink>) -> Self {
        Self {
            sink,
            builder: ChunkBuilder::new(1),
            chunk_started: None,
            eventful: false,
            snapshot: Snapshot::default(),
            idle: false,
            failed: None,
        }
    }

    fn add(&mut self, item: &Item<'_>) {
        if self.failed.is_some() {
            return;
        }
        self.builder.add(item);
        self.idle = false;
        self.eventful = true;
        self.chunk_started.get_or_insert_with(Instant::now);
    }

    fn seal(&mut self, next_flow: u64) {
        self.chunk_started = None;
        self.eventful = false;
        self.idle = false;
        if self.builder.is_empty() || self.failed.is_some() {
            return;
        }
        self.snapshot.next_flow = next_flow;
        let added = self
            .builder
            .seal(next_flow)
            .and_then(|chunk| self.sink.add(chunk, &self.snapshot));
        self.failed = added.err();
    }
}

impl RecordSink for Recorder {
    fn begin(&mut self, head: Head) -> io::Result<()> {
        self.sink.begin(head)
    }

    fn record(&mut self, bytes: &[u8]) {
        self.snapshot.begun.extend(flow_of(bytes));
        self.add(&Item::Record(bytes));
    }

    fn relieve(&mut self, next_flow: u64) {
        if self.builder.len() >= TARGET_CHUNK_LEN {
            self.seal(next_flow);
        }
    }

    fn tick(&mut self, now_ns: u64, is_quiet: bool, next_flow: u64) {
        let wait = if self.eventful { MAX_DELAY } else { MAX_IDLE_DELAY };
        if self.builder.len() >= TARGET_CHUNK_LEN
            || self.chunk_started.is_some_and(|started| started.elapsed() > wait)
        {
            self.seal(next_flow);
        }
        if is_quiet && self.idle && self.builder.move_tick(now_ns) {
            return;
        }
        let eventful = self.eventful;
        self.add(&Item::Tick(now_ns));
        (self.idle, self.eventful) = (is_quiet, eventful || !is_quiet);
    }

    fn facts(&mut self, reported: Option<u32>, facts: &Facts, changed: &ChangedFacts) {
        if *changed == ChangedFacts::default() || self.failed.is_some() {
            return;
        }
        for change in change::diff(&mut self.snapshot.facts, facts, changed) {
            self.add(&Item::Facts(FactUpdate { reported, change }));
        }
    }

    fn health(&mut self, health: &Health) {
        self.add(&Item::Health(health.clone()));
    }

    fn hooks(&mut self, hooks: &Hooks) {
        self.add(&Item::Hooks(hooks.clone()));
    }

    fn end(&mut self, end: &End) {
        self.add(&Item::End(end.clone()));
    }

    fn write_out(&mut self, next_flow: u64) -> io::Result<Option<String>> {
        self.seal(next_flow);
        self.check()?;
        self.sink.write_out()
    }

    fn finish(&mut self, next_flow: u64) -> io::Result<()> {
        self.seal(next_flow);
        self.check()?;
        self.sink.finish()
    }

    fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn bytes(&self) -> u64 {
        self.sink.bytes()
    }
}
