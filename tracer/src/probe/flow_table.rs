//! The kernel half's table of flows: removes entries before it is full.
//!
//! The kernel half never displaces an entry (see [`tracer_common::flow_table`]). A thread of its own removes them while the table is
//! more than half full, because that takes three system calls an entry, and because it must go on under a flood, when the
//! event loop is busy with the records of the flood.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuArray},
};
use tracer_common::{
    flow_number::{self, Origin},
    flow_table::{Count, ENTRIES},
    lost::{self, Counter},
    tuple::Tuple,
};

use super::object::{self, AttachError};
use crate::confine::tracing;

/// Key and value of the table as bytes. The number of the flow is in the first bytes of the value.
type Key = [u8; size_of::<Tuple>()];
type Value = [u8; 16];

/// Up to which value each counter of flow numbers has counted.
type Begun = BTreeMap<u16, u64>;

/// The least entries of the table.
const LEAST_ENTRIES: u32 = 1024;

/// How many entries the table gets if tracer keeps at most this many flows: most flows have two or three tuples.
#[must_use]
pub fn entries(flows: usize) -> u32 {
    let wanted = u32::try_from(flows).unwrap_or(u32::MAX).saturating_mul(3);
    wanted.clamp(LEAST_ENTRIES, ENTRIES)
}

/// How often the table is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// How old a flow is before its entries are removed, where the table is more than half full, and where it is more than three
/// quarters full.
const AGES: [Duration; 2] = [Duration::from_secs(3), Duration::from_millis(300)];

/// How long the event loop may take to name the flows that stay.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// What the event loop and the thread share.
#[derive(Default)]
struct Shared {
    /// Numbers of the flows whose entries stay, however old they are.
    kept: Mutex<HashSet<u64>>,
    /// Whether they are to be named again.
    is_wanted: AtomicBool,
    has_ended: AtomicBool,
}

/// The table.
pub struct FlowTable {
    counts: Arc<PerCpuArray<MapData, Counter>>,
    shared: Arc<Shared>,
}

impl FlowTable {
    /// Takes the table out of the object, and starts the thread that makes room in it.
    pub(super) fn take(ebpf: &mut Ebpf, entries: u32) -> Result<Self, AttachError> {
        let shared = Arc::new(Shared::default());
        let counts = Arc::new(object::take(ebpf, "FLOW_COUNTS")?);
        let mut sweeper = Sweeper {
            table: object::take(ebpf, "FLOWS")?,
            counts: Arc::clone(&counts),
            begun_counts: object::take(ebpf, "BEGUN")?,
            entries: u64::from(entries),
            shared: Arc::clone(&shared),
            left: 0,
            added_before: 0,
            history: VecDeque::new(),
        };
        tracing::spawn_for_maps("flow-table", move || sweeper.run()).map_err(AttachError::Thread)?;
        Ok(Self { counts, shared })
    }

    /// Names the flows whose entries stay, if that is due. To be called at intervals, each time after the records were read.
    pub fn tick(&self, kept: impl FnOnce() -> HashSet<u64>) {
        if self.shared.is_wanted.load(Ordering::Acquire) {
            *self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept();
            self.shared.is_wanted.store(false, Ordering::Release);
        }
    }

    /// What found no room in the table, by kind; kinds that always found some are left out.
    pub fn refused(&self) -> Result<BTreeMap<&'static str, u64>, AttachError> {
        let mut out = BTreeMap::new();
        for (name, what) in [("flow", Count::FlowRefused), ("alias", Count::AliasRefused)] {
            let count = count(&self.counts, what).map_err(map_error("FLOW_COUNTS"))?;
            if count != 0 {
                out.insert(name, count);
            }
        }
        Ok(out)
    }
}

impl Drop for FlowTable {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Release);
    }
}

fn count(counts: &PerCpuArray<MapData, Counter>, what: Count) -> Result<u64, MapError> {
    let per_cpu = counts.get(&(what as u32), 0)?;
    Ok(per_cpu.iter().map(lost::total).sum())
}

/// The thread's state.
struct Sweeper {
    table: HashMap<MapData, Key, Value>,
    counts: Arc<PerCpuArray<MapData, Counter>>,
    begun_counts: PerCpuArray<MapData, u64>,
    entries: u64,
    shared: Arc<Shared>,
    /// How many entries the last sweep left, and how many had been added before it.
    left: u64,
    added_before: u64,
    /// Which flows had begun at some moments of the last seconds, oldest first.
    history: VecDeque<(Instant, Begun)>,
}

impl Sweeper {
    /// Works until tracing ends. A map that cannot be read now may be readable later.
    fn run(&mut self) {
        while !self.shared.has_ended.load(Ordering::Acquire) {
            let _ = self.make_room();
            thread::sleep(INTERVAL);
        }
    }

    fn make_room(&mut self) -> Result<(), MapError> {
        let begun = self.read_begun()?;
        let now = Instant::now();
        self.history.push_back((now, begun));
        let added = count(&self.counts, Count::Added)?;
        let used = self.left.saturating_add(added.saturating_sub(self.added_before));
        let [age, short_age] = AGES;
        let age = match used {
            used if used > self.entries / 4 * 3 => short_age,
            used if used > self.entries / 2 => age,
            _ => {
                self.forget_before(now.checked_sub(age));
                return Ok(());
            }
        };
        self.forget_before(now.checked_sub(AGES[0]));
        let old_enough = self.history.iter().rev();
        let mut old_enough = old_enough.skip_while(|(at, _)| now.duration_since(*at) < age);
        let Some((_, begun)) = old_enough.next() else {
            return Ok(());
        };
        self.wait_for_kept();
        let kept = self
            .shared
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // What is added from here on counts for the next time, even if this sweep meets it already.
        let added = count(&self.counts, Count::Added)?;
        self.left = sweep(&mut self.table, begun, &kept);
        self.added_before = added;
        Ok(())
    }

    /// Drops all moments before the last one that is not after `limit`.
    fn forget_before(&mut self, limit: Option<Instant>) {
        while let (Some(limit), Some((second, _))) = (limit, self.history.get(1))
            && *second <= limit
        {
            self.history.pop_front();
        }
    }

    /// Asks the event loop which flows stay. If it is too busy to answer, its last answer holds.
    fn wait_for_kept(&self) {
        self.shared.is_wanted.store(true, Ordering::Release);
        let begun = Instant::now();
        while self.shared.is_wanted.load(Ordering::Acquire) && begun.elapsed() < ANSWER_LIMIT {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn read_begun(&self) -> Result<Begun, MapError> {
        let mut out = Begun::new();
        for origin in [Origin::Tracepoint, Origin::Kprobe] {
            let per_cpu = self.begun_counts.get(&(origin as u32), 0)?;
            for (cpu, &value) in (0..).zip(per_cpu.iter()) {
                out.insert(flow_number::counter(flow_number::of(cpu, origin, 0)), value);
            }
        }
        Ok(out)
    }
}

fn map_error(name: &'static str) -> impl Fn(MapError) -> AttachError {
    move |source| AttachError::Map { name, source }
}

/// Removes the entries of flows that had begun, except those that are kept. Returns how many entries are left.
fn sweep(table: &mut HashMap<MapData, Key, Value>, begun: &Begun, kept: &HashSet<u64>) -> u64 {
    // The kernel starts from the beginning again if the last key is gone: the keys come first.
    let keys: Vec<Key> = table.keys().filter_map(Result::ok).collect();
    let mut left = 0;
    for key in keys {
        // A new flow may get the tuple just before it is removed: its next SYN begins again.
        let is_over = table
            .get(&key, 0)
            .is_ok_and(|value| is_over(number(&value), begun, kept));
        if !is_over || table.remove(&key).is_err() {
            left += 1;
        }
    }
    left
}

/// The number of an entry's flow.
fn number(value: &Value) -> u64 {
    value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Whether a flow had begun by then, and is not kept.
fn is_over(number: u64, begun: &Begun, kept: &HashSet<u64>) -> bool {
    let had_begun = begun
        .get(&flow_number::counter(number))
        .is_some_and(|&value| flow_number::value(number) <= value);
    had_begun && !kept.contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_old_flows_are_removed_unless_they_are_kept() {
        let of = |value| flow_number::of(3, Origin::Kprobe, value);
        let begun = [(flow_number::counter(of(0)), 20)].into();
        let kept = [of(5)].into();
        assert!(is_over(of(4), &begun, &kept));
        assert!(!is_over(of(5), &begun, &kept), "kept");
        assert!(!is_over(of(21), &begun, &kept), "began later");
        let other = flow_number::of(4, Origin::Kprobe, 1);
        assert!(!is_over(other, &begun, &kept), "another counter");
    }

    #[test]
    fn the_table_grows_with_the_flows_that_are_kept() {
        assert_eq!(entries(1), 1024);
        assert_eq!(entries(2000), 6000);
        assert_eq!(entries(usize::MAX), ENTRIES);
    }
}
