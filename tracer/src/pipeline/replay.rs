//! Replays recordings: the records and facts of a live run, in the same order, through the same code.

use std::{
    collections::VecDeque,
    io, mem,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use tracer_common::record::HeaderVersion;

use super::{
    diagnosis::{self, Knowledge},
    error::PipelineError,
    recordings::{Run, cannot_read},
};
use crate::{
    decode::{bytes::DecodeError, record},
    diagnose::words,
    facts::Facts,
    finding::{
        Clock, Observer,
        observer::Progress,
        run::{End, Health},
    },
    flow::{engine::Engine, fate::Fate, model::Flow},
    recording::{
        change::FactChange,
        item::{FactUpdate, Item, ItemError},
        memory,
        reader::{Damage, Log},
    },
};

/// The end of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// The whole recording was replayed.
    Whole,
    /// The observer stopped the replay.
    Stopped,
}

/// Replays the recordings of one run to the observer.
pub fn play(run: Run, observer: &mut dyn Observer) -> Result<Played, PipelineError> {
    let Some(first) = run.first() else {
        return Ok(Played::Whole);
    };
    let head = first.head().clone();
    let mut player = Player {
        engine: Engine::new(head.patience_ns, head.limits.bounded()),
        clock: Clock::new(head.wall, head.monotonic_ns),
        node: Recorded::default(),
        observer,
        header_version: HeaderVersion::CURRENT,
        last_ns: 0,
        events: 0,
        health: Health::default(),
        end: None,
        lacks_beginning: false,
        unknown_items: 0,
        damaged_items: 0,
        progress_at: Instant::now(),
        is_full: false,
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
                "the preceding file of this run is missing",
            )?;
        }
        before = Some(part);
        player.header_version = recording.reader.header_version();
        // Each file starts with everything that was known when it was opened.
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
                    if player.is_full {
                        break;
                    }
                    recording.reader.recycle(log);
                    player.progress(read + recording.reader.read());
                }
                Ok(None) => break,
                Err(error) => return Err(cannot_read(recording.path(), error)),
            }
        }
        read += recording.reader.read();
        if player.is_full {
            let limit = memory::limit() >> 20;
            warn(
                player.observer,
                recording.path(),
                &format!(
                    "reading it takes more than {limit} MiB of memory: the rest was not read; raise --max-memory if you \
                     trust the file"
                ),
            )?;
            break;
        }
        report_damage(
            player.observer,
            recording.path(),
            recording.reader.damage(),
            &Unread {
                damaged_items: mem::take(&mut player.damaged_items),
                unknown_items: mem::take(&mut player.unknown_items),
                unfit: player.node.unfit - unfit,
            },
        )?;
    }
    player.finish()
}

/// The node as the recording describes it.
#[derive(Default)]
struct Recorded {
    facts: Facts,
    /// The facts that were learned at this tick, each with the number of flows reported before it.
    learned: VecDeque<(u32, FactChange)>,
    /// The number of flows reported at this tick.
    reported: u32,
    /// The number of changes that are unknown or do not fit these facts.
    unfit: u64,
}

impl Recorded {
    fn apply(&mut self, change: FactChange) {
        if !change.apply(&mut self.facts) {
            self.unfit += 1;
        }
    }

    /// Applies the facts that the live run had learned when it had reported this many flows.
    fn learn_until(&mut self, reported: u32) {
        while self.learned.front().is_some_and(|(after, _)| *after <= reported) {
            if let Some((_, change)) = self.learned.pop_front() {
                self.apply(change);
            }
        }
    }
}

impl Knowledge for Recorded {
    fn learn(&mut self, _: &Flow, _: Fate) {
        self.learn_until(self.reported);
        self.reported = self.reported.saturating_add(1);
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// A moment at which flows are judged.
enum Judge {
    Tick(u64),
    End(End),
}

struct Player<'a> {
    engine: Engine,
    clock: Clock,
    node: Recorded,
    observer: &'a mut dyn Observer,
    /// The layout of the headers of this file's records.
    header_version: HeaderVersion,
    /// The last moment that was reported.
    last_ns: u64,
    events: u64,
    /// The last counters of the run.
    health: Health,
    /// Whether the preceding file is missing.
    lacks_beginning: bool,
    /// The end of the run. Reported last, after any damage to the files.
    end: Option<End>,
    /// The number of records and items that this version does not know.
    unknown_items: u64,
    /// The number of items that cannot be read although their chunk is intact.
    damaged_items: u64,
    /// Time of the last progress report.
    progress_at: Instant,
    /// Whether there is no memory left to read more.
    is_full: bool,
}

impl Player<'_> {
    fn progress(&mut self, bytes: u64) {
        if self.progress_at.elapsed() >= PROGRESS {
            self.progress_at = Instant::now();
            self.observer.progress(Progress {
                events: self.events,
                bytes,
            });
        }
    }

    fn log(&mut self, log: &Log) -> Result<ControlFlow<()>, PipelineError> {
        self.engine.count_from(log.header.next_flow);
        // Facts that were learned while flows were judged are recorded after the tick, but replay needs them at the tick.
        let mut pending: Option<Judge> = None;
        for (number, item) in log.items().enumerate() {
            if (number.is_multiple_of(CHECKED) || matches!(item, Ok(Item::Facts(_)))) && !memory::has_room() {
                self.is_full = true;
                break;
            }
            if let Ok(Item::Facts(FactUpdate {
                reported: Some(reported),
                change,
            })) = item
            {
                self.node.learned.push_back((reported, change));
                continue;
            }
            if let Some(moment) = pending.take()
                && self.judge(&moment)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            match item {
                Ok(Item::Record(bytes)) => self.record(bytes),
                Ok(Item::Tick(now_ns)) => pending = Some(Judge::Tick(now_ns)),
                Ok(Item::End(end)) => pending = Some(Judge::End(end)),
                Ok(Item::Facts(learned)) => self.node.apply(learned.change),
                Ok(Item::Health(health)) => {
                    self.observer.health(&health)?;
                    self.health = health;
                }
                Ok(Item::Hooks(hooks)) => self.observer.hooks(&hooks)?,
                Ok(Item::Begun(begun)) if self.lacks_beginning => self.engine.begin_after(begun),
                // The beginning of every flow was read.
                Ok(Item::Begun(_)) => {}
                Err(ItemError::Unknown) => self.unknown_items += 1,
                Err(ItemError::Damaged) => self.damaged_items += 1,
                Err(ItemError::TooLarge) => {
                    self.is_full = true;
                    break;
                }
            }
        }
        match pending {
            Some(moment) => self.judge(&moment),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn record(&mut self, bytes: &[u8]) {
        self.events += 1;
        match record::event(self.header_version, bytes) {
            Ok(event) => {
                self.last_ns = self.last_ns.max(event.time_ns);
                self.engine.push(event);
            }
            Err(DecodeError::Unknown { .. } | DecodeError::Short(..)) => self.unknown_items += 1,
        }
    }

    fn judge(&mut self, moment: &Judge) -> Result<ControlFlow<()>, PipelineError> {
        self.engine.take_bypassing_rules(|_| {});
        self.engine.set_gaps(&self.node.facts.gaps);
        self.node.reported = 0;
        let Self {
            engine,
            node,
            clock,
            observer,
            ..
        } = self;
        match moment {
            Judge::Tick(now_ns) => {
                self.last_ns = self.last_ns.max(*now_ns);
                observer.records(self.events);
                if observer.now(*now_ns)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                diagnosis::report_pending(engine, *now_ns, &node.facts, clock, *observer)?;
                diagnosis::report(|hand_out| engine.poll(*now_ns, hand_out), node, clock, *observer)?;
            }
            Judge::End(end) => {
                if observer.now(end.now_ns)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                diagnosis::report(
                    |hand_out| engine.finish(end.now_ns, hand_out),
                    node,
                    clock,
                    *observer,
                )?;
                let mut end = end.clone();
                end.evicted.raise(engine.evicted());
                self.end = Some(end);
            }
        }
        self.node.learn_until(u32::MAX);
        Ok(ControlFlow::Continue(()))
    }

    /// Ends the replay. If the recording was not shut down cleanly, judges its remaining flows first.
    fn finish(mut self) -> Result<Played, PipelineError> {
        if self.end.is_none() {
            let end = Judge::End(End {
                now_ns: self.last_ns,
                events: self.events,
                lost: self.health.lost(),
                received: self.health.received,
                lost_by_hook: self.health.lost_by_hook.clone(),
                missed: self.health.missed.clone(),
                refused: self.health.refused.clone(),
                evicted: self.engine.evicted().clone(),
            });
            if self.judge(&end)?.is_break() {
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

/// What was not read in chunks that are intact.
struct Unread {
    /// Items that cannot be read.
    damaged_items: u64,
    /// Items and records that this version does not know.
    unknown_items: u64,
    /// Changes that do not fit the facts before them.
    unfit: u64,
}

fn report_damage(
    observer: &mut dyn Observer,
    path: &Path,
    damage: Damage,
    unread: &Unread,
) -> io::Result<()> {
    let &Unread {
        damaged_items,
        unknown_items,
        unfit,
    } = unread;
    let Damage {
        incomplete_bytes,
        is_complete,
        damaged_chunks,
        stray_bytes,
        unknown_chunks,
        chunks: _,
    } = damage;
    if !is_complete {
        let tail = match incomplete_bytes {
            0 => "everything written by then was read".to_owned(),
            1 => "the last byte is unusable, the rest was read".to_owned(),
            bytes => format!("the last {bytes} bytes are unusable, the rest was read"),
        };
        warn(
            observer,
            path,
            &format!("incomplete (the recorder was killed or the disk was full): {tail}"),
        )?;
    }
    let is_damaged = damaged_chunks + stray_bytes + damaged_items > 0;
    if is_damaged {
        let parts = [
            (damaged_chunks, "chunk"),
            (stray_bytes, "byte"),
            (damaged_items, "item"),
            // A change to facts that were lost with a chunk.
            (unfit, "fact"),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| words::count(count, what))
            .collect();
        let skipped = parts.join(", ");
        warn(
            observer,
            path,
            &format!("damaged: {skipped} skipped; the flows and facts in them are missing"),
        )?;
    }
    let unfit = if is_damaged { 0 } else { unfit };
    if unknown_chunks + unknown_items + unfit > 0 {
        warn(
            observer,
            path,
            &format!(
                "possibly written by a newer version of tracer: skipped {}, {} and {}",
                words::count(unknown_chunks, "unknown chunk"),
                words::count(unknown_items, "unknown record"),
                words::count(unfit, "unknown fact")
            ),
        )?;
    }
    Ok(())
}

fn warn(observer: &mut dyn Observer, path: &Path, what: &str) -> io::Result<()> {
    observer.damage(&format!("{}: {what}", path.display()))
}

/// After how many items the memory is checked, besides before each fact.
const CHECKED: usize = 64;
/// The interval of progress reports.
const PROGRESS: Duration = Duration::from_secs(1);
