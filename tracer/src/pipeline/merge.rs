//! Merges what observers of several recorded runs write, by wall-clock time.
//!
//! Each run is replayed in its own thread, which waits when it is far ahead of the others. That bounds memory, however long
//! the recordings are.

use std::{
    io::{self, Write},
    mem,
    ops::ControlFlow,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use jiff::Timestamp;

use super::{
    error::PipelineError,
    recordings::{self, Run},
    replay,
};
use crate::{
    facts::Facts,
    finding::{
        Clock, Finding, Observer,
        head::Head,
        observer::{Buffered, Progress},
        run::{End, Health, Hooks},
    },
};

/// The most pieces of one run that wait for the others.
const MOST_PIECES: usize = 16;
/// The size at which a piece is sent, in bytes.
const ENOUGH: usize = 64 << 10;

/// Output of one run, and when a live run would have written it.
struct Piece {
    time: Timestamp,
    lines: Vec<u8>,
}

/// Merges the output of the runs' observers, in the order in which live runs would have written it.
///
/// `observer` creates the observer of a run, from the name of its host and the length of the longest name. Returns the
/// observers of all runs once they are read.
pub fn write<O: Buffered + Send>(
    runs: Vec<Run>,
    out: &mut impl Write,
    observer: impl Fn(String, usize) -> O,
) -> Result<Vec<O>, PipelineError> {
    let longest = runs
        .iter()
        .map(|run| recordings::host(run).len())
        .max()
        .unwrap_or(0);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut waiting = Vec::new();
        for run in runs {
            let (sender, receiver) = sync_channel(MOST_PIECES);
            let mut stamped = Stamped {
                observer: observer(recordings::host(&run), longest),
                clock: None,
                time: Timestamp::MIN,
                sender,
            };
            waiting.push(receiver);
            let host = recordings::host(&run);
            let thread = scope.spawn(move || {
                replay::play(run, &mut stamped)?;
                stamped.send()?;
                Ok(stamped.observer)
            });
            threads.push((host, thread));
        }
        let written = merge(waiting, out);
        let mut observers = Ok(Vec::new());
        for (host, thread) in threads {
            let run = thread.join().unwrap_or_else(|_| {
                Err(PipelineError::Failed(anyhow::anyhow!(
                    "cannot replay the recording of {host}: its thread panicked"
                )))
            });
            match (&mut observers, run) {
                (Ok(observers), Ok(observer)) => observers.push(observer),
                (Ok(_), Err(error)) => observers = Err(error),
                (Err(_), _) => {}
            }
        }
        // If the output failed, the threads ended for that reason.
        written.map_err(PipelineError::Output)?;
        observers
    })
}

/// Writes the pieces of all runs, the earliest first. Those of one run come in order.
fn merge(receivers: Vec<Receiver<Piece>>, out: &mut impl Write) -> io::Result<()> {
    let mut next: Vec<(Piece, Receiver<Piece>)> = receivers
        .into_iter()
        .filter_map(|receiver| Some((receiver.recv().ok()?, receiver)))
        .collect();
    while let Some(at) = earliest(&next) {
        let (piece, receiver) = &mut next[at];
        out.write_all(&piece.lines)?;
        match receiver.recv() {
            Ok(following) => *piece = following,
            Err(_) => {
                next.remove(at);
            }
        }
    }
    out.flush()
}

/// The earliest piece; if several have the same time, that of the first run.
fn earliest(next: &[(Piece, Receiver<Piece>)]) -> Option<usize> {
    (0..next.len()).min_by_key(|&at| next[at].0.time)
}

/// Sends the output of its observer, stamped with the time at which a live run would have written it.
struct Stamped<O> {
    observer: O,
    clock: Option<Clock>,
    /// The time of the output that is not sent yet.
    time: Timestamp,
    sender: SyncSender<Piece>,
}

impl<O: Buffered> Stamped<O> {
    fn send(&mut self) -> io::Result<()> {
        let lines = mem::take(self.observer.buffer());
        if lines.is_empty() {
            return Ok(());
        }
        let piece = Piece {
            time: self.time,
            lines,
        };
        // The merge has stopped because its output failed.
        self.sender
            .send(piece)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Sets the time of the output that follows. Times of one run never go backwards.
    fn at(&mut self, time: Timestamp) -> io::Result<()> {
        if time > self.time {
            self.send()?;
            self.time = time;
        }
        Ok(())
    }
}

impl<O: Buffered> Observer for Stamped<O> {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.clock = Some(Clock::new(head.wall, head.monotonic_ns));
        self.at(head.ready)?;
        self.observer.start(head)
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        self.at(hooks.time)?;
        self.observer.hooks(hooks)
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        self.observer.flow(finding)?;
        if self.observer.buffer().len() >= ENOUGH {
            self.send()?;
        }
        Ok(())
    }

    fn wants_pending(&self) -> bool {
        self.observer.wants_pending()
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        self.at(health.time)?;
        self.observer.health(health)
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        self.observer.damage(what)
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.observer.end(end)
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        if let Some(clock) = self.clock {
            self.at(clock.at(now_ns))?;
        }
        self.observer.now(now_ns)
    }

    fn facts(&mut self, facts: &Facts) {
        self.observer.facts(facts);
    }

    fn progress(&mut self, progress: Progress) {
        self.observer.progress(progress);
    }
}
