//! What happens while tracing, on its way into a recording.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    change,
    chunk::Sealed,
    item::{Item, Learned},
    writer::{Builder, ENOUGH},
};
use crate::{
    facts::{Facts, changed::Changed},
    finding::{
        head::Head,
        run::{End, Health, Hooks},
        sink::RecordSink,
    },
    flow::begun::Begun,
};

/// What is recorded is written after this time at the latest, so that little is lost with a process that is killed.
const SOON: Duration = Duration::from_secs(2);
/// If nothing happens, that can wait for longer.
const LATER: Duration = Duration::from_secs(10);

/// Where chunks go.
pub trait Sink {
    /// Tracing begins. Facts that are known already come with the first chunk.
    fn begin(&mut self, head: Head) -> io::Result<()>;
    /// Takes a chunk; this is how things stand after it.
    fn take(&mut self, chunk: Sealed, after: &Standing) -> io::Result<()>;
    /// Writes what is only in memory, and goes on; answers with where to, if anywhere.
    fn write_out(&mut self) -> io::Result<Option<String>>;
    /// There is no more.
    fn finish(&mut self) -> io::Result<()>;
    /// Bytes so far, in the file or in memory.
    fn bytes(&self) -> u64;
}

/// How things stand.
#[derive(Debug, Default)]
pub struct Standing {
    /// The facts as far as they are recorded.
    pub known: Facts,
    /// Flows that have begun.
    pub begun: Begun,
    /// The number of the next flow that begins.
    pub next_flow: u64,
}

/// See the module. After an error nothing more is recorded; [`Recorder::check`] tells it.
pub struct Recorder {
    sink: Box<dyn Sink>,
    builder: Builder,
    /// When the first item of the chunk came, and the first that is more than the passing of time.
    begun: Option<Instant>,
    eventful: bool,
    standing: Standing,
    /// Nothing has happened since this item but a tick at which nothing did.
    idle: bool,
    failed: Option<io::Error>,
}

/// The kernel half's number of the flow that a record is of: it stands behind the time (`Header` of `tracer-common`).
pub(super) fn flow_of(record: &[u8]) -> Option<u64> {
    let flow = record.get(8..16)?.first_chunk().copied()?;
    Some(u64::from_le_bytes(flow))
}

impl Recorder {
    /// Records to `sink`, from [`RecordSink::begin`] on.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>) -> Self {
        Self {
            sink,
            builder: Builder::new(1),
            begun: None,
            eventful: false,
            standing: Standing::default(),
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
        self.begun.get_or_insert_with(Instant::now);
    }

    fn seal(&mut self, next_flow: u64) {
        self.begun = None;
        self.eventful = false;
        self.idle = false;
        if self.builder.is_empty() || self.failed.is_some() {
            return;
        }
        self.standing.next_flow = next_flow;
        let taken = self
            .builder
            .seal(next_flow)
            .and_then(|chunk| self.sink.take(chunk, &self.standing));
        self.failed = taken.err();
    }
}

impl RecordSink for Recorder {
    fn begin(&mut self, head: Head) -> io::Result<()> {
        self.sink.begin(head)
    }

    fn record(&mut self, bytes: &[u8]) {
        self.standing.begun.extend(flow_of(bytes));
        self.add(&Item::Record(bytes));
    }

    fn relieve(&mut self, next_flow: u64) {
        if self.builder.len() >= ENOUGH {
            self.seal(next_flow);
        }
    }

    fn tick(&mut self, now_ns: u64, is_quiet: bool, next_flow: u64) {
        let wait = if self.eventful { SOON } else { LATER };
        if self.builder.len() >= ENOUGH || self.begun.is_some_and(|begun| begun.elapsed() > wait) {
            self.seal(next_flow);
        }
        if is_quiet && self.idle && self.builder.move_tick(now_ns) {
            return;
        }
        let eventful = self.eventful;
        self.add(&Item::Tick(now_ns));
        (self.idle, self.eventful) = (is_quiet, eventful || !is_quiet);
    }

    fn facts(&mut self, reported: Option<u32>, facts: &Facts, changed: &Changed) {
        if *changed == Changed::default() || self.failed.is_some() {
            return;
        }
        for change in change::between(&mut self.standing.known, facts, changed) {
            self.add(&Item::Facts(Learned {
                told: reported,
                change,
            }));
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
