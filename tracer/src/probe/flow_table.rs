//! The kernel half's table of flows: removes the entries of flows that are over before it is full.
//!
//! The kernel half never displaces an entry (see [`tracer_common::flow_table`]). Removing takes three system calls an entry, so it
//! happens on a thread of its own, and only while the table is more than half full.

use std::{
    collections::{BTreeMap, HashSet},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
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

/// The entries to remove: those of flows that began before, except these.
struct Sweep {
    begun: Begun,
    followed: HashSet<u64>,
}

/// What to do at a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// There is room.
    Idle,
    /// The records of all flows that began before a moment are to be read first.
    Reading,
    /// Entries are being removed.
    Sweeping,
}

/// The table.
pub struct FlowTable {
    counts: PerCpuArray<MapData, Counter>,
    begun_counts: PerCpuArray<MapData, u64>,
    entries: u64,
    phase: Phase,
    begun: Begun,
    /// How many entries the last sweep left, and how many had been added before it.
    left: u64,
    added_before: u64,
    sweeps: Sender<Sweep>,
    swept: Receiver<u64>,
}

impl FlowTable {
    /// Takes the table out of the object, and starts the thread that sweeps it.
    pub(super) fn take(ebpf: &mut Ebpf, entries: u32) -> Result<Self, AttachError> {
        let table: HashMap<MapData, Key, Value> = object::take(ebpf, "FLOWS")?;
        let (sweeps, requests) = channel::<Sweep>();
        let (results, swept) = channel();
        let work = move || {
            // Ends with the sender.
            let mut table = table;
            for sweep in requests {
                let left = self::sweep(&mut table, &sweep);
                if results.send(left).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("flow-table".to_owned())
            .spawn(work)
            .map_err(AttachError::Thread)?;
        Ok(Self {
            counts: object::take(ebpf, "FLOW_COUNTS")?,
            begun_counts: object::take(ebpf, "BEGUN")?,
            entries: u64::from(entries),
            phase: Phase::Idle,
            begun: Begun::new(),
            left: 0,
            added_before: 0,
            sweeps,
            swept,
        })
    }

    /// Removes entries if that is due. To be called at intervals, each time after all records were read that were there before.
    /// `followed` gives the numbers of the flows whose packets are still wanted.
    pub fn tick(&mut self, followed: impl FnOnce() -> HashSet<u64>) -> Result<(), AttachError> {
        match self.phase {
            Phase::Idle => {
                let added = self.count(Count::Added)?;
                let used = self.left.saturating_add(added.saturating_sub(self.added_before));
                if used > self.entries / 2 {
                    self.added_before = added;
                    self.begun = self.read_begun()?;
                    self.phase = Phase::Reading;
                }
            }
            Phase::Reading => {
                let begun = std::mem::take(&mut self.begun);
                let followed = followed();
                // The thread ends only with this sender.
                let _ = self.sweeps.send(Sweep { begun, followed });
                self.phase = Phase::Sweeping;
            }
            Phase::Sweeping => {
                if let Ok(left) = self.swept.try_recv() {
                    self.left = left;
                    self.phase = Phase::Idle;
                }
            }
        }
        Ok(())
    }

    /// What found no room in the table, by kind; kinds that always found some are left out.
    pub fn refused(&self) -> Result<BTreeMap<&'static str, u64>, AttachError> {
        let mut out = BTreeMap::new();
        for (name, what) in [("flow", Count::FlowRefused), ("alias", Count::AliasRefused)] {
            let count = self.count(what)?;
            if count != 0 {
                out.insert(name, count);
            }
        }
        Ok(out)
    }

    fn count(&self, what: Count) -> Result<u64, AttachError> {
        let per_cpu = self
            .counts
            .get(&(what as u32), 0)
            .map_err(map_error("FLOW_COUNTS"))?;
        Ok(per_cpu.iter().map(lost::total).sum())
    }

    fn read_begun(&self) -> Result<Begun, AttachError> {
        let mut out = Begun::new();
        for origin in [Origin::Tracepoint, Origin::Kprobe] {
            let per_cpu = self
                .begun_counts
                .get(&(origin as u32), 0)
                .map_err(map_error("BEGUN"))?;
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

/// Removes what is to be removed. Returns how many entries are left.
fn sweep(table: &mut HashMap<MapData, Key, Value>, sweep: &Sweep) -> u64 {
    // The kernel starts from the beginning again if the last key is gone: the keys come first.
    let keys: Vec<Key> = table.keys().filter_map(Result::ok).collect();
    let mut left = 0;
    for key in keys {
        // A new flow may get the tuple just before it is removed: its next SYN begins again.
        let is_over = table
            .get(&key, 0)
            .is_ok_and(|value| is_over(number(&value), sweep));
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

/// Whether a flow began early enough to be known, and is not followed any more: it is over, or its records were lost.
fn is_over(number: u64, sweep: &Sweep) -> bool {
    let counter = flow_number::counter(number);
    let is_known = sweep
        .begun
        .get(&counter)
        .is_some_and(|&value| flow_number::value(number) <= value);
    is_known && !sweep.followed.contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_flows_that_are_over_or_unknown_are_removed() {
        let of = |value| flow_number::of(3, Origin::Kprobe, value);
        let sweep = Sweep {
            begun: [(flow_number::counter(of(0)), 20)].into(),
            followed: [of(5)].into(),
        };
        assert!(is_over(of(4), &sweep));
        assert!(!is_over(of(5), &sweep), "still followed");
        assert!(!is_over(of(21), &sweep), "its records may not have been read");
        assert!(
            !is_over(flow_number::of(4, Origin::Kprobe, 1), &sweep),
            "another counter"
        );
    }

    #[test]
    fn the_table_grows_with_the_flows_that_are_kept() {
        assert_eq!(entries(1), 1024);
        assert_eq!(entries(2000), 6000);
        assert_eq!(entries(usize::MAX), ENTRIES);
    }
}
