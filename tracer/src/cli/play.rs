//! Plays recordings: what live tracing met, in the same order, through the same code.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use tracer_common::record::HeaderVersion;

use super::{
    exit::Failure,
    view::{self, Knowledge, Progress, View},
};
use crate::{
    flow::{engine::Engine, fate::Fate, model::Flow},
    node::facts::Facts,
    probe::decode::{self, DecodeError},
    report::Clock,
    trace::{
        change::Change,
        error::TraceError,
        head::Head,
        item::{End, Item, Learned, Odd},
        reader::{Damage, Log, Reader},
    },
};

/// A recording that was opened.
pub(super) struct Recording {
    pub(super) path: PathBuf,
    pub(super) reader: Reader<Box<dyn Read + Send>>,
}

impl Recording {
    fn open(path: &Path) -> Result<Self, Failure> {
        let input: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        let reader = Reader::new(input).map_err(|error| cannot_read(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            reader,
        })
    }

    fn head(&self) -> &Head {
        self.reader.head()
    }

    /// Where it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Recordings of one run of the tracer, in order.
pub(super) type Run = Vec<Recording>;

/// Opens recordings, and sorts them by run and within each run by their place in it; the earliest run comes first.
pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<Run>, Failure> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        if file.is_some_and(|file| !seen.insert((file.dev(), file.ino()))) {
            view::complain(&format!(
                "{}: it is given more than once, and read once",
                path.display()
            ));
            continue;
        }
        all.push(Recording::open(path)?);
    }
    let key = |recording: &Recording| {
        let head = recording.head();
        (head.wall, head.session.clone(), head.part)
    };
    all.sort_by_key(key);
    let mut runs: Vec<Run> = Vec::new();
    for recording in all {
        match runs.last_mut() {
            Some(run)
                if run
                    .last()
                    .is_some_and(|last| goes_on(last.head(), recording.head())) =>
            {
                run.push(recording);
            }
            _ => runs.push(vec![recording]),
        }
    }
    Ok(runs)
}

/// The name of the host on which a run was recorded.
pub(super) fn host(run: &Run) -> String {
    run.first()
        .map_or_else(String::new, |recording| recording.head().host.clone())
}

fn goes_on(head: &Head, next: &Head) -> bool {
    !head.session.is_empty() && head.session == next.session && head.part != next.part
}

/// Plays the recordings of one run to the view.
pub(super) fn play(run: Run, view: &mut dyn View) -> Result<(), Failure> {
    let Some(first) = run.first() else {
        return Ok(());
    };
    let head = first.head().clone();
    let mut player = Player {
        engine: Engine::new(head.patience_ns),
        clock: Clock::new(head.wall, head.monotonic_ns),
        node: Recorded::default(),
        view,
        header_version: HeaderVersion::CURRENT,
        last_ns: 0,
        events: 0,
        lost: 0,
        end: None,
        lacks_beginning: false,
        odd: 0,
        told: Instant::now(),
    };
    let mut read = 0;
    player.view.start(&head)?;
    let mut before: Option<u32> = None;
    for mut recording in run {
        let part = recording.head().part;
        let goes_on = before.is_some_and(|before| before.checked_add(1) == Some(part));
        player.lacks_beginning = !goes_on;
        if before.is_some() && !goes_on {
            warn(
                player.view,
                &recording.path,
                "the part of this run before it is not among the files",
            )?;
        }
        before = Some(part);
        player.header_version = recording.reader.header_version();
        // Each file tells all that was known when it began.
        player.node.facts = Facts {
            drop_reasons: recording.head().drop_reasons.iter().cloned().collect(),
            ..Facts::default()
        };
        let unfit = player.node.unfit;
        loop {
            match recording.reader.next_log() {
                Ok(Some(log)) => {
                    player.log(&log)?;
                    player.progress(read + recording.reader.read());
                }
                Ok(None) => break,
                Err(error) => return Err(cannot_read(&recording.path, error)),
            }
        }
        read += recording.reader.read();
        tell_damage(
            player.view,
            &recording.path,
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
    learned: VecDeque<(u32, Change)>,
    /// How many flows were told of at this tick.
    told: u32,
    /// Changes that are unknown, or not of these facts.
    unfit: u64,
}

impl Recorded {
    fn apply(&mut self, change: Change) {
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
    view: &'a mut dyn View,
    /// The layout of the headers of this file's records.
    header_version: HeaderVersion,
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
            self.view.progress(Progress {
                events: self.events,
                bytes,
            });
        }
    }

    fn log(&mut self, log: &Log) -> Result<(), Failure> {
        self.engine.count_from(log.head.next_flow);
        // What was learned while flows were told of stands behind the tick, and must be known at it.
        let mut asked: Option<Ask> = None;
        for item in log.items() {
            if let Ok(Item::Facts(Learned {
                told: Some(told),
                change,
            })) = item
            {
                self.node.learned.push_back((told, change));
                continue;
            }
            if let Some(ask) = asked.take() {
                self.ask(&ask)?;
            }
            match item {
                Ok(Item::Record(bytes)) => self.record(bytes),
                Ok(Item::Tick(now_ns)) => asked = Some(Ask::Tick(now_ns)),
                Ok(Item::End(end)) => asked = Some(Ask::End(end)),
                Ok(Item::Facts(learned)) => self.node.apply(learned.change),
                Ok(Item::Health(health)) => {
                    self.lost = health.lost();
                    self.view.health(&health)?;
                }
                Ok(Item::Hooks(hooks)) => self.view.hooks(&hooks)?,
                Ok(Item::Begun(begun)) if self.lacks_beginning => self.engine.begin_after(begun),
                // All of them were seen.
                Ok(Item::Begun(_)) => {}
                Err(Odd::Unknown | Odd::Broken) => self.odd += 1,
            }
        }
        match asked {
            Some(ask) => self.ask(&ask),
            None => Ok(()),
        }
    }

    fn record(&mut self, bytes: &[u8]) {
        self.events += 1;
        match decode::event(self.header_version, bytes) {
            Ok(event) => {
                self.last_ns = self.last_ns.max(event.time_ns);
                self.engine.push(event);
            }
            Err(DecodeError::Unknown { .. } | DecodeError::Short(..)) => self.odd += 1,
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<(), Failure> {
        self.engine.take_unasked(|_| {});
        self.node.told = 0;
        let Self {
            engine,
            node,
            clock,
            view,
            ..
        } = self;
        match ask {
            Ask::Tick(now_ns) => {
                self.last_ns = self.last_ns.max(*now_ns);
                view.records(self.events);
                view.now(*now_ns)?;
                view::tell_open(engine, *now_ns, &node.facts, clock, *view)?;
                view::tell(|say| engine.poll(*now_ns, say), node, clock, *view)?;
            }
            Ask::End(end) => {
                view.now(end.now_ns)?;
                view::tell(|say| engine.finish(end.now_ns, say), node, clock, *view)?;
                self.end = Some(end.clone());
            }
        }
        self.node.learn_until(u32::MAX);
        Ok(())
    }

    /// A recording that was not ended in good order ends here.
    fn finish(mut self) -> Result<(), Failure> {
        if self.end.is_none() {
            self.ask(&Ask::End(End {
                now_ns: self.last_ns,
                events: self.events,
                lost: self.lost,
            }))?;
        }
        if let Some(end) = &self.end {
            self.view.end(end)?;
        }
        self.view.facts(&self.node.facts);
        Ok(())
    }
}

fn tell_damage(
    view: &mut dyn View,
    path: &Path,
    damage: Damage,
    odd: u64,
    unfit: u64,
) -> Result<(), Failure> {
    let Damage {
        torn,
        ended,
        broken_chunks,
        strange_bytes,
        unknown_chunks,
        chunks: _,
    } = damage;
    if !ended {
        let tail = match torn {
            0 => String::new(),
            torn => format!("; its last {torn} bytes are a chunk that is not whole"),
        };
        warn(
            view,
            path,
            &format!(
                "it was not ended in good order (the recorder was killed, or the disk was full){tail}; what was written \
                 before was read"
            ),
        )?;
    }
    if broken_chunks + strange_bytes > 0 {
        warn(
            view,
            path,
            &format!(
                "it is damaged: {} left out; flows and facts in them are missing",
                match (broken_chunks, strange_bytes) {
                    (0, bytes) => format!("{bytes} bytes were"),
                    (1, 0) => "1 chunk was".to_owned(),
                    (chunks, 0) => format!("{chunks} chunks were"),
                    (chunks, bytes) => format!("{chunks} chunks and {bytes} bytes between them were"),
                }
            ),
        )?;
    }
    if unknown_chunks + odd + unfit > 0 {
        warn(
            view,
            path,
            &format!(
                "it holds what this version of tracer does not understand, from a newer one perhaps; left out: \
                 {unknown_chunks} chunks, {odd} records or items, {unfit} facts"
            ),
        )?;
    }
    Ok(())
}

fn warn(view: &mut dyn View, path: &Path, what: &str) -> Result<(), Failure> {
    view.damage(&format!("{}: {what}", path.display()))
}

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);

fn cannot_read(path: &Path, error: TraceError) -> Failure {
    let error = anyhow::Error::from(error);
    Failure::Failed(anyhow!("{}: {error:#}", path.display()))
}
