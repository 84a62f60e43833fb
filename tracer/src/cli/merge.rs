//! Recordings of several runs as one: what each tells, in the order of the wall clock.
//!
//! Each run is played in a thread of its own, which waits when it is far ahead of the others. So memory stays bounded,
//! however long the recordings are.

use std::{
    io::Write,
    mem,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use jiff::Timestamp;

use super::{
    args::Select,
    exit::Failure,
    lines::{Form, Lines},
    play::{self, Run},
    view::{Told, View},
};
use crate::{
    flow::fate::Fate,
    report::Clock,
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
};

/// So many pieces of one run may wait for the others.
const MOST_PIECES: usize = 16;
/// A piece is about so long at most.
const ENOUGH: usize = 64 << 10;

/// Lines of one run, and when live tracing would have printed them.
struct Piece {
    time: Timestamp,
    lines: Vec<u8>,
}

/// Prints what the runs tell, in the order in which live tracing would have told it.
pub(super) fn print(
    runs: Vec<Run>,
    out: &mut impl Write,
    form: Form,
    select: &Select,
    fail_on: Option<Fate>,
) -> Result<(), Failure> {
    // The names of hosts stand in a column.
    let widest = runs.iter().map(|run| play::host(run).len()).max().unwrap_or(0);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut waiting = Vec::new();
        for run in runs {
            let (sender, receiver) = sync_channel(MOST_PIECES);
            let mut lines = Stamped {
                lines: Lines::new(Vec::new(), form, select)
                    .of_recording()
                    .of_host(play::host(&run), widest),
                clock: None,
                time: Timestamp::MIN,
                sender,
            };
            waiting.push(receiver);
            threads.push(scope.spawn(move || {
                play::play(run, &mut lines)?;
                lines.send()?;
                lines.lines.fail_on(fail_on)
            }));
        }
        let printed = merge(waiting, out);
        let mut told = Ok(());
        for thread in threads {
            let run = thread.join().unwrap_or_else(|_| {
                Err(Failure::Failed(anyhow::anyhow!(
                    "a recording could not be played"
                )))
            });
            told = match (told, run) {
                // That something failed is worse than that a flow had the fate.
                (Ok(()) | Err(Failure::FailOn(_)), Err(failed @ Failure::Failed(_))) => Err(failed),
                (told, run) => told.and(run),
            };
        }
        // Threads whose pieces nobody takes any more have ended for that reason.
        printed.and(told)
    })
}

/// Writes the pieces of all runs, the earliest first. Those of one run come in order.
fn merge(receivers: Vec<Receiver<Piece>>, out: &mut impl Write) -> Result<(), Failure> {
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
    Ok(out.flush()?)
}

/// The earliest piece; of those of the same time that of the first run.
fn earliest(next: &[(Piece, Receiver<Piece>)]) -> Option<usize> {
    (0..next.len()).min_by_key(|&at| next[at].0.time)
}

/// Sends the lines on, with their times.
struct Stamped {
    lines: Lines<Vec<u8>>,
    clock: Option<Clock>,
    /// When the lines that are not sent yet were told.
    time: Timestamp,
    sender: SyncSender<Piece>,
}

impl Stamped {
    fn send(&mut self) -> Result<(), Failure> {
        let lines = mem::take(self.lines.out());
        if lines.is_empty() {
            return Ok(());
        }
        let piece = Piece {
            time: self.time,
            lines,
        };
        self.sender.send(piece).map_err(|_| Failure::ClosedPipe)
    }

    /// What follows was told at this time. Times of one run never go back.
    fn at(&mut self, time: Timestamp) -> Result<(), Failure> {
        if time > self.time {
            self.send()?;
            self.time = time;
        }
        Ok(())
    }
}

impl View for Stamped {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        self.clock = Some(Clock::new(head.wall, head.monotonic_ns));
        self.at(head.ready)?;
        self.lines.start(head)
    }

    fn hooks(&mut self, hooks: &Hooks) -> Result<(), Failure> {
        self.at(hooks.time)?;
        self.lines.hooks(hooks)
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        self.lines.flow(told)?;
        if self.lines.out().len() >= ENOUGH {
            self.send()?;
        }
        Ok(())
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
        self.at(health.time)?;
        self.lines.health(health)
    }

    fn damage(&mut self, what: &str) -> Result<(), Failure> {
        self.lines.damage(what)
    }

    fn end(&mut self, end: &End) -> Result<(), Failure> {
        self.lines.end(end)
    }

    fn now(&mut self, now_ns: u64) -> Result<(), Failure> {
        match self.clock {
            Some(clock) => self.at(clock.at(now_ns)),
            None => Ok(()),
        }
    }
}
