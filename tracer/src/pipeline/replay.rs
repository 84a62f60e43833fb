//! Plays recordings: what live tracing met, in the same order, through the same code.

use std::{
    collections::VecDeque,
    io,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    diagnosis::{self, Knowledge},
    error::PipelineError,
    recordings::{Run, cannot_read},
};
use crate::{
    decode::{bytes::DecodeError, record},
    facts::Facts,
    finding::{Clock, Observer, observer::Progress, run::End},
    flow::{engine::Engine, fate::Fate, model::Flow},
    recording::{
        change::FactChange,
        item::{FactUpdate, Item, ItemError},
        reader::{Damage, Log},
    },
};

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// All of it was replayed.
    Whole,
    /// The observer stopped it.
    Stopped,
}

/// Replays the recordings of one run to the observer.
pub fn play(run: Run, observer: &mut dyn Observer) -> Result<Played, PipelineError> {
    let Some(first) = run.first() else {
        return Ok(Played::Whole);
    };
    let head = first.head().clone();
    let mut player = Player {
        engine: Engine::new(head.patience_ns),
        clock: Clock::new(head.wall, head.monotonic_ns),
        node: Recorded::default(),
        observer,
        last_ns: 0,
        events: 0,
        lost: 0,
        end: None,
        lacks_beginning: false,
        odd: 0,
        told: Instant::now(),
    };
    let mut read = 0;
    player.observer.start(&head)?;
    let mut before: Option<u32> = None;
    for mut recording in run {
        let part = recording.head().part;
        let goes_on = before.is_some_and(|before| before.checked_add(1) == Some(part));
        player.lacks_beginning = !goes_on;
        if before.is_some() && !goes_on {
            warn(
                player.observer,
                recording.path(),
                "the part of this run before it is not among the files",
            )?;
        }
        before = Some(part);
        // Each file tells all that was known when it began.
        player.node.facts = Facts {
            drop_reasons: recording.head().drop_reasons.iter().cloned().collect(),
            ..Facts::default()
        };
        let unfit = player.node.unfit;
        loop {
            match recording.reader.next_log() {
                Ok(Some(log)) => {
                    if player.log(&log)?.is_break() {
                        return Ok(Played::Stopped);
                    }
                    player.progress(read + recording.reader.read());
                }
                Ok(None) => break,
                Err(error) => return Err(cannot_read(recording.path(), error)),
            }
        }
        read += recording.reader.read();
        tell_damage(
            player.observer,
            recording.path(),
            recording.reader.damage(),
            player.odd,
            player.node.unfit - unfit,
        )?;
        player.odd = 0;
    }
    player.finish()
}

/// What a recording tells of the node.
#[derive(Default)]
struct Recorded {
    facts: Facts,
    /// What was learned at this tick, and after how many flows.
    learned: VecDeque<(u32, FactChange)>,
    /// How many flows were told of at this tick.
    told: u32,
    /// Changes that are unknown, or not of these facts.
    unfit: u64,
}

impl Recorded {
    fn apply(&mut self, change: FactChange) {
        if !change.apply(&mut self.facts) {
            self.unfit += 1;
        }
    }

    /// Learns what was learned up to the time when so many flows had been told of.
    fn learn_until(&mut self, told: u32) {
        while self.learned.front().is_some_and(|(after, _)| *after <= told) {
            if let Some((_, change)) = self.learned.pop_front() {
                self.apply(change);
            }
        }
    }
}

impl Knowledge for Recorded {
    fn learn(&mut self, _: &Flow, _: Fate) {
        self.learn_until(self.told);
        self.told = self.told.saturating_add(1);
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// A moment at which flows are asked for their fates.
enum Ask {
    Tick(u64),
    End(End),
}

struct Player<'a> {
    engine: Engine,
    clock: Clock,
    node: Recorded,
    observer: &'a mut dyn Observer,
    /// The last moment that was told of.
    last_ns: u64,
    events: u64,
    lost: u64,
    /// What was recorded before this file is not there.
    lacks_beginning: bool,
    /// How it was ended. It is told after all else, also after what is wrong with the files.
    end: Option<End>,
    /// Records and items that this version does not understand.
    odd: u64,
    /// When progress was last told.
    told: Instant,
}

impl Player<'_> {
    fn progress(&mut self, bytes: u64) {
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            self.observer.progress(Progress {
                events: self.events,
                bytes,
            });
        }
    }

    fn log(&mut self, log: &Log) -> Result<ControlFlow<()>, PipelineError> {
        self.engine.count_from(log.header.next_flow);
        // What was learned while flows were told of stands behind the tick, and must be known at it.
        let mut asked: Option<Ask> = None;
        for item in log.items() {
            if let Ok(Item::Facts(FactUpdate {
                reported: Some(reported),
                change,
            })) = item
            {
                self.node.learned.push_back((reported, change));
                continue;
            }
            if let Some(ask) = asked.take()
                && self.ask(&ask)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            match item {
                Ok(Item::Record(bytes)) => self.record(bytes),
                Ok(Item::Tick(now_ns)) => asked = Some(Ask::Tick(now_ns)),
                Ok(Item::End(end)) => asked = Some(Ask::End(end)),
                Ok(Item::Facts(learned)) => self.node.apply(learned.change),
                Ok(Item::Health(health)) => {
                    self.lost = health.lost();
                    self.observer.health(&health)?;
                }
                Ok(Item::Hooks(hooks)) => self.observer.hooks(&hooks)?,
                Ok(Item::Begun(begun)) if self.lacks_beginning => self.engine.begin_after(begun),
                // All of them were seen.
                Ok(Item::Begun(_)) => {}
                Err(ItemError::Unknown | ItemError::Damaged) => self.odd += 1,
            }
        }
        match asked {
            Some(ask) => self.ask(&ask),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn record(&mut self, bytes: &[u8]) {
        self.events += 1;
        match record::event(bytes) {
            Ok(event) => {
                self.last_ns = self.last_ns.max(event.time_ns);
                self.engine.push(event);
            }
            Err(DecodeError::Unknown { .. } | DecodeError::Short(..)) => self.odd += 1,
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<ControlFlow<()>, PipelineError> {
        self.engine.take_unasked(|_| {});
        self.node.told = 0;
        let Self {
            engine,
            node,
            clock,
            observer,
            ..
        } = self;
        match ask {
            Ask::Tick(now_ns) => {
                self.last_ns = self.last_ns.max(*now_ns);
                observer.records(self.events);
                if observer.now(*now_ns)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                diagnosis::report_pending(engine, *now_ns, &node.facts, clock, *observer)?;
                diagnosis::report(|say| engine.poll(*now_ns, say), node, clock, *observer)?;
            }
            Ask::End(end) => {
                if observer.now(end.now_ns)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                diagnosis::report(|say| engine.finish(end.now_ns, say), node, clock, *observer)?;
                self.end = Some(end.clone());
            }
        }
        self.node.learn_until(u32::MAX);
        Ok(ControlFlow::Continue(()))
    }

    /// Ends the run. An incomplete recording ends at its last event.
    fn finish(mut self) -> Result<Played, PipelineError> {
        if self.end.is_none() {
            let end = Ask::End(End {
                now_ns: self.last_ns,
                events: self.events,
                lost: self.lost,
            });
            if self.ask(&end)?.is_break() {
                return Ok(Played::Stopped);
            }
        }
        if let Some(end) = &self.end {
            self.observer.end(end)?;
        }
        self.observer.facts(&self.node.facts);
        Ok(Played::Whole)
    }
}

fn tell_damage(
    observer: &mut dyn Observer,
    path: &Path,
    damage: Damage,
    odd: u64,
    unfit: u64,
) -> io::Result<()> {
    let Damage {
        incomplete_bytes,
        is_complete,
        damaged_chunks,
        stray_bytes,
        unknown_chunks,
        chunks: _,
    } = damage;
    if !is_complete {
        let read = match incomplete_bytes {
            0 => "everything up to there was read".to_owned(),
            1 => "the last byte is unusable, the rest was read".to_owned(),
            bytes => format!("the last {bytes} bytes are unusable, the rest was read"),
        };
        warn(
            observer,
            path,
            &format!("incomplete (the recorder was killed or the disk was full): {read}"),
        )?;
    }
    if damaged_chunks + stray_bytes > 0 {
        let skipped = counts(&[
            (damaged_chunks, ["chunk", "chunks"]),
            (stray_bytes, ["byte", "bytes"]),
        ]);
        warn(
            observer,
            path,
            &format!("damaged: skipped {skipped}; their flows and facts are missing"),
        )?;
    }
    if unknown_chunks + odd + unfit > 0 {
        let skipped = counts(&[
            (unknown_chunks, ["chunk", "chunks"]),
            (odd, ["record or item", "records or items"]),
            (unfit, ["fact", "facts"]),
        ]);
        warn(
            observer,
            path,
            &format!("skipped what this version of tracer does not know: {skipped}"),
        )?;
    }
    Ok(())
}

/// Joins the counts that are not 0, each with the singular or plural of its noun: `1 chunk, 20 bytes`.
fn counts(counts: &[(u64, [&str; 2])]) -> String {
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counted = counts.map(|(count, [one, several])| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {several}"),
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn warn(observer: &mut dyn Observer, path: &Path, what: &str) -> io::Result<()> {
    observer.damage(&format!("{}: {what}", path.display()))
}

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);
