//! The observer of a run, such as lines, a screen, a report or an export.

use std::{io, ops::ControlFlow};

use super::{
    costs::Costs,
    head::Head,
    run::{End, Health, Hooks},
    verdict::Finding,
};
use crate::facts::Facts;

/// The progress of a run, or of reading a recording.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Records so far.
    pub events: u64,
    /// Bytes of the recording so far.
    pub bytes: u64,
}

/// Receives the findings and the state of a run, live or from a recording, in the order of time.
///
/// An error means that the observer's own output failed, and ends the run. `BrokenPipe` ends it quietly.
pub trait Observer {
    /// Every hook that will attach is attached.
    fn start(&mut self, head: &Head) -> io::Result<()>;

    /// Hooks changed their state.
    fn hooks(&mut self, _: &Hooks) -> io::Result<()> {
        Ok(())
    }

    /// A flow's fate is known, or has changed.
    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()>;

    /// Whether the observer wants flows before their fate is known.
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

    /// This many records of a recording were read up to the moment of the next [`Self::now`].
    fn records(&mut self, _: u64) {}

    /// Flows are about to be judged at this moment of the monotonic clock, in nanoseconds. `Break` stops a replay here.
    fn now(&mut self, _: u64) -> io::Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// The recording is damaged or truncated: what follows may be incomplete.
    fn damage(&mut self, what: &str) -> io::Result<()>;

    /// The facts about the node when the run ends.
    fn facts(&mut self, _: &Facts) {}

    /// Called once a second.
    fn progress(&mut self, _: Progress) {}

    /// Whether the observer wants the cost of the hooks. Counting it has a small cost of its own.
    fn wants_costs(&self) -> bool {
        false
    }

    /// The cost of the hooks in the last second. Reported only while [`Self::wants_costs`].
    fn costs(&mut self, _: Costs) {}

    /// A flow was seen that ends the run, now or soon.
    fn matched(&mut self, _: &str) {}

    /// Whether the run must end.
    fn is_done(&self) -> bool {
        false
    }
}

/// An observer that writes to memory, so that the output of several runs can be merged by time.
pub trait Buffered: Observer {
    /// The text written since the buffer was last cleared.
    fn buffer(&mut self) -> &mut Vec<u8>;
}
