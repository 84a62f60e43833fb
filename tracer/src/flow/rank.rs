//! Which flows to evict first when there are too many.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{model::Flow, step::RETRANSMIT_NS};

/// How much a flow may still explain, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// One SYN and no SYN-ACK: almost every flow of a SYN flood.
    #[default]
    OneSyn,
    /// Established without a retransmission, or refused at once.
    Finished,
    /// One SYN, which was answered. Not decided yet, or the client never sent its ACK.
    Answered,
    /// The client or the backend retransmitted: stalled or failed.
    Retransmitted,
}

impl Rank {
    /// All ranks, in the order in which their flows are evicted.
    pub const ALL: [Self; 4] = [Self::OneSyn, Self::Finished, Self::Answered, Self::Retransmitted];

    /// The name of the rank in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneSyn => "one-syn",
            Self::Finished => "finished",
            Self::Answered => "answered",
            Self::Retransmitted => "retransmitted",
        }
    }

    /// The rank of a flow.
    pub(super) fn of(flow: &Flow) -> Self {
        let has_retransmitted = flow.last_syn_ns().saturating_sub(flow.start_ns()) >= RETRANSMIT_NS;
        if has_retransmitted || flow.ack_lost_ns.is_some() {
            Self::Retransmitted
        } else if flow.established_ns.is_some() || flow.refused_ns.is_some() {
            Self::Finished
        } else if flow.synacks > 0 {
            Self::Answered
        } else {
            Self::OneSyn
        }
    }
}

/// How many flows were evicted before their time, by rank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Evicted(pub BTreeMap<Rank, u64>);

impl Evicted {
    /// Flows of all ranks.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The counts by the name of the rank.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.0.iter().filter(|(_, count)| **count != 0);
        counts.map(|(rank, count)| (rank.name(), *count)).collect()
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (rank, count) in &other.0 {
            let sum = self.0.entry(*rank).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// Raises each count to that of another reading of the same run.
    pub fn raise(&mut self, other: &Self) {
        for (rank, count) in &other.0 {
            let known = self.0.entry(*rank).or_default();
            *known = (*known).max(*count);
        }
    }

    pub(super) fn count(&mut self, rank: Rank) {
        *self.0.entry(rank).or_default() += 1;
    }
}

impl fmt::Display for Evicted {
    /// Writes "9 flows evicted (8 one-syn, 1 finished)".
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let flows = if total == 1 { "flow" } else { "flows" };
        write!(out, "{total} {flows} evicted")?;
        for (index, (rank, count)) in self.by_name().into_iter().enumerate() {
            out.write_str(if index == 0 { " (" } else { ", " })?;
            write!(out, "{count} {rank}")?;
        }
        out.write_str(if self.0.is_empty() { "" } else { ")" })
    }
}

/// The kernel's numbers of flows, by rank and in the order in which they got it.
///
/// A flow that changes its rank leaves its old place behind. The owner of the flows knows which place is current.
#[derive(Debug, Default)]
pub(super) struct Ranks([Queue; Rank::ALL.len()]);

#[derive(Debug, Default)]
struct Queue {
    numbers: VecDeque<u64>,
    /// How many of them are current.
    current: usize,
}

/// Places left behind that are kept at least, so that they are removed in large batches.
const SLACK: usize = 1024;

impl Ranks {
    /// Adds a flow.
    pub(super) fn add(&mut self, number: u64, rank: Rank) {
        let queue = &mut self.0[rank as usize];
        queue.numbers.push_back(number);
        queue.current += 1;
    }

    /// Moves a flow to another rank. `rank_of` returns the rank of a flow now, `None` if it is gone.
    pub(super) fn change(
        &mut self,
        number: u64,
        (from, to): (Rank, Rank),
        rank_of: impl Fn(u64) -> Option<Rank>,
    ) {
        self.leave(from, rank_of);
        self.add(number, to);
    }

    /// Notes that a flow of this rank is gone.
    pub(super) fn leave(&mut self, from: Rank, rank_of: impl Fn(u64) -> Option<Rank>) {
        let queue = &mut self.0[from as usize];
        queue.current = queue.current.saturating_sub(1);
        if queue.numbers.len() > 2 * queue.current + SLACK {
            queue.numbers.retain(|&number| rank_of(number) == Some(from));
        }
    }

    /// The flow that has had this rank longest.
    pub(super) fn first(&mut self, rank: Rank, rank_of: impl Fn(u64) -> Option<Rank>) -> Option<u64> {
        let numbers = &mut self.0[rank as usize].numbers;
        while let Some(&number) = numbers.front() {
            if rank_of(number) == Some(rank) {
                return Some(number);
            }
            numbers.pop_front();
        }
        None
    }
}
