//! The destination of a live run's recording.

use std::io;

use super::{
    head::Head,
    run::{End, Health, Hooks},
};
use crate::facts::{Facts, changed_facts::ChangedFacts};

/// Receives the kernel's records, and everything else that a replay needs to judge flows as the live run did.
///
/// After an error nothing more is recorded; [`Self::check`] returns it.
pub trait RecordSink {
    /// The run begins: every hook that will attach is attached.
    fn begin(&mut self, head: Head) -> io::Result<()>;

    /// A record came from the ring buffer.
    fn record(&mut self, bytes: &[u8]);

    /// Writes the buffer if it is large. `next_flow` is the number of the next flow that begins. Must not be called while
    /// flows are judged.
    fn relieve(&mut self, next_flow: u64);

    /// Flows are judged at this moment of the monotonic clock; `is_quiet` if none is due.
    fn tick(&mut self, now_ns: u64, is_quiet: bool, next_flow: u64);

    /// Facts may have changed. `reported` is the number of flows reported so far at this tick; `None` between ticks.
    fn facts(&mut self, reported: Option<u32>, facts: &Facts, changed: &ChangedFacts);

    /// Records were lost.
    fn health(&mut self, health: &Health);

    /// Hooks changed their state.
    fn hooks(&mut self, hooks: &Hooks);

    /// The run ends: the flows reported after this are the last ones.
    fn end(&mut self, end: &End);

    /// Writes what is only in memory, and keeps recording. Returns the path, if there was anything to write.
    fn write_out(&mut self, next_flow: u64) -> io::Result<Option<String>>;

    /// Writes the rest.
    fn finish(&mut self, next_flow: u64) -> io::Result<()>;

    /// Returns the error of a write that failed. Each error is returned once.
    fn check(&mut self) -> io::Result<()>;

    /// The number of bytes so far.
    fn bytes(&self) -> u64;
}
