//! Whoever reads what a run finds out: lines, a screen, a report, an export.

use std::{io, ops::ControlFlow};

use super::{
    costs::Costs,
    head::Head,
    run::{End, Health, Hooks},
    verdict::Finding,
};
use crate::facts::Facts;

/// How far a run, or the reading of a recording, has got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Records so far.
    pub events: u64,
    /// Bytes of the recording so far.
    pub bytes: u64,
}

/// Receives what a run finds out, live or from a recording, in the order in which it happened.
///
/// An error is one of the observer's own output, and ends the run. `BrokenPipe` ends it quietly.
pub trait Observer {
    /// Every hook that will attach is attached.
    fn start(&mut self, head: &Head) -> io::Result<()>;

    /// Hooks changed their state.
    fn hooks(&mut self, _: &Hooks) -> io::Result<()> {
        Ok(())
    }

    /// A flow's fate is known, or has changed.
    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()>;

    /// Does it want flows before their fate is known?
    fn wants_pending(&self) -> bool {
        false
    }

    /// Records were lost.
    fn health(&mut self, _: &Health) -> io::Result<()> {
        Ok(())
    }

    /// The run is over.
    fn end(&mut self, _: &End) -> io::Result<()> {
        Ok(())
    }

    /// Nothing follows for a while: what is buffered may be written.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// So many records of a recording were read by the moment of the next [`Self::now`].
    fn records(&mut self, _: u64) {}

    /// Flows are about to be judged at this moment of the monotonic clock, in nanoseconds. `Break` stops a replay here.
    fn now(&mut self, _: u64) -> io::Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// The recording is damaged or truncated: what follows may be incomplete.
    fn damage(&mut self, what: &str) -> io::Result<()>;

    /// What is known of the node at the end.
    fn facts(&mut self, _: &Facts) {}

    /// Called once a second.
    fn progress(&mut self, _: Progress) {}

    /// Does it want to know what the hooks cost? Counting costs a little itself.
    fn wants_costs(&self) -> bool {
        false
    }

    /// What the hooks cost in the last second, while that is wanted.
    fn costs(&mut self, _: Costs) {}

    /// Is the run to end?
    fn is_done(&self) -> bool {
        false
    }
}

/// An observer that writes to memory, so that the output of several runs can be merged in the order of time.
pub trait Buffered: Observer {
    /// What was written since this was last cleared.
    fn buffer(&mut self) -> &mut Vec<u8>;
}
