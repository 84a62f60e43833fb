//! Recognises flows of several nodes as one connection. Pure.
//!
//! A SYN that one node translated, masqueraded or put into a tunnel is another flow on the next node. NAT leaves its
//! initial sequence number alone, and it arrives there with one of the tuples seen here. Sequence number, tuple
//! and time must all match.

mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use tracer_common::{hook::Hook, tcp::Part, tuple::Tuple};

use crate::{
    decode::event::Payload,
    finding::Finding,
    flow::model::{Flow, Step},
};

pub use verdict::{NodeVerdict, Verdict, judge};

/// Number of the run, and of the flow in it.
pub type Key = (usize, u64);

/// The largest time between the SYNs of one connection on two nodes, in milliseconds. Clocks set by NTP differ by some
/// milliseconds; this also allows for unsynchronised clocks. It must stay well below the 274 s after which a client may use the
/// same sequence number on the same port again: Linux adds a 32-bit clock of 64 ns ticks to it (`net/core/secure_seq.c`).
pub const APART_MS: i64 = 10_000;

/// The most tuples kept of a flow besides the one it arrived with. A retransmission may go to another backend.
const MOST_TUPLES: usize = 6;
/// The most flows with the same sequence number and tuple that are compared.
const MOST_ALIKE: usize = 64;

/// The data kept about a flow to find it on other nodes. Tuples are hashes, because there may be millions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Time of its first SYN, in milliseconds of the wall clock.
    first_ms: i64,
    /// Time from its first to its last SYN.
    lasted_ms: u32,
    isn: u32,
    /// The tuple it arrived with.
    original: u32,
    /// Other tuples with which its SYN was seen.
    others: [u32; MOST_TUPLES],
    count: u8,
    /// Whether a device sent the SYN with the tuple it arrived with.
    leaves: bool,
    /// Whether TCP received the SYN with that tuple: its path then ends on this node.
    ends: bool,
    /// Whether this node dropped the SYN or the SYN-ACK at least once.
    dropped: bool,
}

impl Fingerprint {
    /// The fingerprint of the flow as known so far.
    #[must_use]
    pub fn of(finding: &Finding<'_>) -> Self {
        let Finding { flow, clock, .. } = *finding;
        let ms = |nanos: u64| clock.at(nanos).as_millisecond();
        let first_ms = ms(flow.start_ns());
        let mut fingerprint = Self {
            first_ms,
            lasted_ms: u32::try_from(ms(flow.last_syn_ns()).saturating_sub(first_ms)).unwrap_or(u32::MAX),
            isn: flow.isn,
            original: hash(&flow.original),
            others: [0; MOST_TUPLES],
            count: 0,
            leaves: false,
            ends: false,
            dropped: false,
        };
        for step in &flow.steps {
            fingerprint.add(step, flow);
        }
        fingerprint
    }

    fn add(&mut self, step: &Step, flow: &Flow) {
        let event = &step.event;
        let tuple = match event.part {
            Part::Syn => event.tuple,
            Part::SynAck => event.tuple.reversed(),
            Part::Rst | Part::Ack | Part::Other => return,
        };
        self.dropped |= matches!(event.payload, Payload::Drop(_)) && step.netns == flow.netns;
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

    /// Whether the node dropped the SYN or the SYN-ACK at least once.
    #[must_use]
    pub fn dropped(&self) -> bool {
        self.dropped
    }

    /// The initial sequence number of its SYN.
    #[must_use]
    pub fn isn(&self) -> u32 {
        self.isn
    }

    /// Whether SYNs of both were seen at the same time, allowing for clock differences.
    #[must_use]
    pub fn is_near(&self, other: &Self) -> bool {
        let last = |fingerprint: &Self| {
            fingerprint
                .first_ms
                .saturating_add(i64::from(fingerprint.lasted_ms))
        };
        self.first_ms.saturating_sub(last(other)) <= APART_MS
            && other.first_ms.saturating_sub(last(self)) <= APART_MS
    }

    /// Time between their first SYNs.
    fn apart_ms(&self, other: &Self) -> u64 {
        self.first_ms.abs_diff(other.first_ms)
    }

    /// The order in which the SYN reached the two flows. `None` if they are not one connection.
    fn order(&self, other: &Self) -> Option<Order> {
        if self.isn != other.isn || !self.is_near(other) {
            return None;
        }
        if self.original == other.original {
            // IPVS does this with direct routing and with tunnels.
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

/// Hashes a tuple. A collision does no harm: the sequence number and the time must match too.
fn hash(tuple: &Tuple) -> u32 {
    let mut hasher = DefaultHasher::new();
    tuple.hash(&mut hasher);
    // The upper half is as good as the lower one.
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

/// The connections seen by more than one run: their flows in the order the SYN reached them, as far as that is known, so
/// the node that the client contacted is first. A run has at most one flow of each connection.
#[must_use]
pub fn connections(fingerprints: &BTreeMap<Key, Fingerprint>) -> Vec<Vec<Key>> {
    let links = links(fingerprints);
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
        let together = one_of_each_run(together, fingerprints);
        if together.len() > 1 {
            out.push(in_order(together, fingerprints));
        }
    }
    out
}

/// Maps each flow to those of the same connection.
fn links(fingerprints: &BTreeMap<Key, Fingerprint>) -> BTreeMap<Key, Vec<Key>> {
    let mut by_tuple: Vec<(u32, u32, Key)> = fingerprints
        .iter()
        .map(|(key, fingerprint)| (fingerprint.isn, fingerprint.original, *key))
        .collect();
    by_tuple.sort_unstable();
    let mut links: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
    for (&key, fingerprint) in fingerprints {
        for &tuple in [fingerprint.original].iter().chain(fingerprint.others()) {
            let begin =
                by_tuple.partition_point(|(isn, original, _)| (*isn, *original) < (fingerprint.isn, tuple));
            let alike = by_tuple[begin..]
                .iter()
                .take_while(|(isn, original, _)| (*isn, *original) == (fingerprint.isn, tuple));
            for &(.., other) in alike.take(MOST_ALIKE) {
                let is_same = fingerprints
                    .get(&other)
                    .is_some_and(|other| fingerprint.order(other).is_some());
                if other.0 != key.0 && is_same {
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

/// Keeps one flow of each run: the one nearest in time to the first.
fn one_of_each_run(together: Vec<Key>, fingerprints: &BTreeMap<Key, Fingerprint>) -> Vec<Key> {
    let Some(first) = together.first().and_then(|key| fingerprints.get(key)) else {
        return together;
    };
    let apart = |key: &Key| {
        fingerprints
            .get(key)
            .map_or(u64::MAX, |fingerprint| fingerprint.apart_ms(first))
    };
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

/// Sorts flows by the path of the SYN: next is a flow that none of the remaining ones precedes, the earliest if there are
/// several.
fn in_order(mut left: Vec<Key>, fingerprints: &BTreeMap<Key, Fingerprint>) -> Vec<Key> {
    left.sort_by_key(|key| {
        (
            fingerprints
                .get(key)
                .map_or(0, |fingerprint| fingerprint.first_ms),
            *key,
        )
    });
    let comes_after = |key: &Key, other: &Key| match (fingerprints.get(key), fingerprints.get(other)) {
        (Some(fingerprint), Some(other)) => fingerprint.order(other) == Some(Order::After),
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
