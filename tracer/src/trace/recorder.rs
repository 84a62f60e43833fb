//! What happens while tracing, on its way into a recording.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    change,
    chunk::Sealed,
    head::Head,
    item::{End, Health, Hooks, Item, Learned},
    writer::{Builder, ENOUGH},
};
use crate::{
    flow::begun::Begun,
    node::{changed::Changed, facts::Facts},
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
    /// Begins a recording.
    pub fn new(mut sink: Box<dyn Sink>, head: Head) -> io::Result<Self> {
        sink.begin(head)?;
        Ok(Self {
            sink,
            builder: Builder::new(1),
            begun: None,
            eventful: false,
            standing: Standing::default(),
            idle: false,
            failed: None,
        })
    }

    /// A record came from the ring buffer.
    pub fn record(&mut self, bytes: &[u8]) {
        self.standing.begun.extend(flow_of(bytes));
        self.add(&Item::Record(bytes));
    }

    /// Writes what there is if it is much; `next_flow` is the number of the next flow that begins. Not while flows are
    /// told of.
    pub fn relieve(&mut self, next_flow: u64) {
        if self.builder.len() >= ENOUGH {
            self.seal(next_flow);
        }
    }

    /// Flows are asked for their fates; `quiet` if there is none to be asked.
    pub fn tick(&mut self, now_ns: u64, quiet: bool, next_flow: u64) {
        let wait = if self.eventful { SOON } else { LATER };
        if self.builder.len() >= ENOUGH || self.begun.is_some_and(|begun| begun.elapsed() > wait) {
            self.seal(next_flow);
        }
        if quiet && self.idle && self.builder.move_tick(now_ns) {
            return;
        }
        let eventful = self.eventful;
        self.add(&Item::Tick(now_ns));
        (self.idle, self.eventful) = (quiet, eventful || !quiet);
    }

    /// Facts may have changed; `told` flows have been told of at this tick, `None` between ticks.
    pub fn learned(&mut self, told: Option<u32>, facts: &Facts, changed: &Changed) {
        if *changed == Changed::default() || self.failed.is_some() {
            return;
        }
        for change in change::between(&mut self.standing.known, facts, changed) {
            self.add(&Item::Facts(Learned { told, change }));
        }
    }

    /// Records were lost.
    pub fn health(&mut self, health: &Health) {
        self.add(&Item::Health(health.clone()));
    }

    /// Hooks changed their state.
    pub fn hooks(&mut self, hooks: &Hooks) {
        self.add(&Item::Hooks(hooks.clone()));
    }

    /// Tracing ends: what is told from here on are the last flows.
    pub fn end(&mut self, end: &End) {
        self.add(&Item::End(end.clone()));
    }

    /// Writes what is only in memory, and goes on.
    pub fn write_out(&mut self, next_flow: u64) -> io::Result<Option<String>> {
        self.seal(next_flow);
        self.check()?;
        self.sink.write_out()
    }

    /// Writes the rest.
    pub fn finish(mut self, next_flow: u64) -> io::Result<()> {
        self.seal(next_flow);
        self.check()?;
        self.sink.finish()
    }

    /// Could everything be written so far? Told once.
    pub fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sink.bytes()
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
