//! Which flows of several nodes are one connection. Pure.
//!
//! A SYN that one node translated, masqueraded or put into a tunnel comes to the next node as another flow. NAT leaves
//! its initial sequence number alone, and the tuple with which it arrives there is one with which it was seen here. Both
//! must agree, and the time.

mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use tracer_common::{hook::Hook, tcp::Part, tuple::Tuple};

use crate::{
    decode::event::Payload,
    finding::clock::Clock,
    flow::model::{Flow, Step},
};

pub use verdict::{Said, Verdict, judge};

/// The number of the run, and that of the flow in it.
pub type Key = (usize, u64);

/// So far apart two nodes may have seen the SYNs of one connection, in milliseconds. Clocks that are set by NTP differ by
/// some milliseconds; this is for those that are not. It must stay well below the 274 s after which the same client may
/// send the same number from the same port again: Linux adds a clock to it that ticks every 64 ns
/// (`net/core/secure_seq.c`), and it has 32 bits.
pub const APART_MS: i64 = 10_000;

/// So many tuples of a flow are kept besides that with which it came: a SYN that is sent again may go to another backend.
const MOST_TUPLES: usize = 6;
/// So many flows with the same number and tuple are looked at.
const MOST_ALIKE: usize = 64;

/// What is kept of a flow to find its other half: hashes, for there may be millions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// When its first SYN was seen, milliseconds of the wall clock.
    first_ms: i64,
    /// From then to its last SYN.
    lasted_ms: u32,
    isn: u32,
    /// The tuple with which it came.
    original: u32,
    /// Others with which its SYN was seen.
    others: [u32; MOST_TUPLES],
    count: u8,
    /// A device was handed the SYN with the tuple with which it had come.
    leaves: bool,
    /// TCP met the SYN with that tuple here: its way ends here.
    ends: bool,
    /// This node discarded the SYN or the SYN-ACK at least once.
    discarded: bool,
}

impl Sight {
    /// Of what is known of the flow so far.
    #[must_use]
    pub fn of(flow: &Flow, clock: &Clock) -> Self {
        let ms = |nanos: u64| clock.at(nanos).as_millisecond();
        let first_ms = ms(flow.start_ns());
        let mut sight = Self {
            first_ms,
            lasted_ms: u32::try_from(ms(flow.last_syn_ns()).saturating_sub(first_ms)).unwrap_or(u32::MAX),
            isn: flow.isn,
            original: hash(&flow.original),
            others: [0; MOST_TUPLES],
            count: 0,
            leaves: false,
            ends: false,
            discarded: false,
        };
        for step in &flow.steps {
            sight.add(step, flow);
        }
        sight
    }

    fn add(&mut self, step: &Step, flow: &Flow) {
        let event = &step.event;
        let tuple = match event.part {
            Part::Syn => event.tuple,
            Part::SynAck => event.tuple.reversed(),
            Part::Rst | Part::Ack | Part::Other => return,
        };
        self.discarded |= matches!(event.payload, Payload::Drop(_)) && step.netns == flow.netns;
        if tuple != flow.original {
            self.keep(hash(&tuple));
        } else if event.part == Part::Syn {
            self.leaves |= event.hook == Hook::DevStartXmit;
            self.ends |= event.hook.is_tcp_input();
        }
    }

    fn keep(&mut self, tuple: u32) {
        let kept = usize::from(self.count);
        if kept < MOST_TUPLES && !self.others[..kept].contains(&tuple) {
            self.others[kept] = tuple;
            self.count += 1;
        }
    }

    fn others(&self) -> &[u32] {
        &self.others[..usize::from(self.count)]
    }

    /// Did the node discard the SYN or the SYN-ACK at least once?
    #[must_use]
    pub fn discarded(&self) -> bool {
        self.discarded
    }

    /// The initial sequence number of its SYN.
    #[must_use]
    pub fn isn(&self) -> u32 {
        self.isn
    }

    /// Were SYNs of both seen at the same time, as far as clocks agree?
    #[must_use]
    pub fn is_near(&self, other: &Self) -> bool {
        let last = |sight: &Self| sight.first_ms.saturating_add(i64::from(sight.lasted_ms));
        self.first_ms.saturating_sub(last(other)) <= APART_MS
            && other.first_ms.saturating_sub(last(self)) <= APART_MS
    }

    /// How far apart their beginnings are.
    fn apart_ms(&self, other: &Self) -> u64 {
        self.first_ms.abs_diff(other.first_ms)
    }

    /// Does the way lead from this flow to the other, or the other way round? `None` if they are not one connection.
    fn order(&self, other: &Self) -> Option<Order> {
        if self.isn != other.isn || !self.is_near(other) {
            return None;
        }
        if self.original == other.original {
            // As IPVS sends it with direct routing or in a tunnel.
            return Some(match (self.ends, other.ends) {
                (false, true) => Order::Before,
                (true, false) => Order::After,
                _ => match (self.leaves, other.leaves) {
                    (true, false) => Order::Before,
                    (false, true) => Order::After,
                    _ => Order::Unclear,
                },
            });
        }
        let leads = |from: &Self, to: &Self| from.others().contains(&to.original);
        match (leads(self, other), leads(other, self)) {
            (true, false) => Some(Order::Before),
            (false, true) => Some(Order::After),
            (true, true) => Some(Order::Unclear),
            (false, false) => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Before,
    After,
    Unclear,
}

/// A tuple as a number. Two tuples with the same one do no harm: the number of the SYN and the time must be the same as well.
fn hash(tuple: &Tuple) -> u32 {
    let mut hasher = DefaultHasher::new();
    tuple.hash(&mut hasher);
    // The upper half is as good as the lower one.
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

/// The connections that more than one run saw: their flows in the order in which the SYN came to them, as far as that is
/// known, so the one that the client asked is first. A run has at most one flow of each.
#[must_use]
pub fn connections(sights: &BTreeMap<Key, Sight>) -> Vec<Vec<Key>> {
    let links = links(sights);
    let mut done = BTreeSet::new();
    let mut out = Vec::new();
    for &start in links.keys() {
        if !done.insert(start) {
            continue;
        }
        let mut together = vec![start];
        let mut next = 0;
        while let Some(key) = together.get(next) {
            next += 1;
            let linked = links.get(key).into_iter().flatten();
            together.extend(linked.filter(|key| done.insert(**key)));
        }
        let together = one_of_each_run(together, sights);
        if together.len() > 1 {
            out.push(in_order(together, sights));
        }
    }
    out
}

/// Which flows are the same connection as which others.
fn links(sights: &BTreeMap<Key, Sight>) -> BTreeMap<Key, Vec<Key>> {
    let mut by_tuple: Vec<(u32, u32, Key)> = sights
        .iter()
        .map(|(key, sight)| (sight.isn, sight.original, *key))
        .collect();
    by_tuple.sort_unstable();
    let mut links: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
    for (&key, sight) in sights {
        for &tuple in [sight.original].iter().chain(sight.others()) {
            let begin = by_tuple.partition_point(|(isn, original, _)| (*isn, *original) < (sight.isn, tuple));
            let alike = by_tuple[begin..]
                .iter()
                .take_while(|(isn, original, _)| (*isn, *original) == (sight.isn, tuple));
            for &(.., other) in alike.take(MOST_ALIKE) {
                let is_one = sights
                    .get(&other)
                    .is_some_and(|other| sight.order(other).is_some());
                if other.0 != key.0 && is_one {
                    links.entry(key).or_default().push(other);
                    links.entry(other).or_default().push(key);
                }
            }
        }
    }
    for linked in links.values_mut() {
        linked.sort_unstable();
        linked.dedup();
    }
    links
}

/// Leaves of the flows of each run the one that is nearest to the first.
fn one_of_each_run(together: Vec<Key>, sights: &BTreeMap<Key, Sight>) -> Vec<Key> {
    let Some(first) = together.first().and_then(|key| sights.get(key)) else {
        return together;
    };
    let apart = |key: &Key| sights.get(key).map_or(u64::MAX, |sight| sight.apart_ms(first));
    let mut by_run: BTreeMap<usize, Key> = BTreeMap::new();
    for key in together {
        by_run
            .entry(key.0)
            .and_modify(|kept| {
                if apart(&key) < apart(kept) {
                    *kept = key;
                }
            })
            .or_insert(key);
    }
    by_run.into_values().collect()
}

/// One after the other, those first to which none of the others leads; where that leaves a choice, the earliest.
fn in_order(mut left: Vec<Key>, sights: &BTreeMap<Key, Sight>) -> Vec<Key> {
    left.sort_by_key(|key| (sights.get(key).map_or(0, |sight| sight.first_ms), *key));
    let comes_after = |key: &Key, other: &Key| match (sights.get(key), sights.get(other)) {
        (Some(sight), Some(other)) => sight.order(other) == Some(Order::After),
        _ => false,
    };
    let mut out = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let first = left
            .iter()
            .position(|key| !left.iter().any(|other| comes_after(key, other)));
        out.push(left.remove(first.unwrap_or(0)));
    }
    out
}
