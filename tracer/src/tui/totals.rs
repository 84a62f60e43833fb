//! Totals over all flows that were reported, kept or not.

use std::collections::{BTreeMap, VecDeque};

use super::{names::Name, row::Row};
use crate::{diagnose::cause::Cause, flow::fate::Fate};

/// The number of fates.
pub const FATES: usize = 6;
/// The fates, most severe first.
pub const WORST_FIRST: [Fate; FATES] = [
    Fate::Dropped,
    Fate::Refused,
    Fate::Unanswered,
    Fate::Stalled,
    Fate::Pending,
    Fate::Established,
];
/// The number of latest seconds with fates counted one by one.
const MAX_SECONDS: usize = 600;
/// The most drop sites, and the most services, counted separately.
const MAX_KEYS: usize = 10_000;
/// The least time lost by a flow that never connected, for sorting causes only; microseconds.
const NEVER_US: u64 = 3_000_000;

/// The place of a fate in [`WORST_FIRST`].
#[must_use]
pub fn rank(fate: Fate) -> usize {
    WORST_FIRST
        .iter()
        .position(|&other| other == fate)
        .unwrap_or_default()
}

/// Totals over some flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Flows by the rank of their fate.
    pub fates: [u64; FATES],
    /// Failures, whatever their fate.
    pub failures: u64,
    /// Time that clients lost, microseconds.
    pub lost_us: u64,
    /// The sort key of causes and services.
    pub weight: u64,
    /// Start of the latest flow, monotonic nanoseconds.
    pub last_ns: u64,
}

impl Sum {
    /// The number of flows.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.fates.iter().sum()
    }

    /// The number of flows with this fate.
    #[must_use]
    pub fn of(&self, fate: Fate) -> u64 {
        self.fates[rank(fate)]
    }

    /// The number of established flows that were misdirected.
    #[must_use]
    pub fn misdirected(&self) -> u64 {
        let by_fate = WORST_FIRST.into_iter().filter(|fate| fate.is_bad());
        let by_fate: u64 = by_fate.map(|fate| self.of(fate)).sum();
        self.failures.saturating_sub(by_fate)
    }

    fn count(&mut self, row: &Row, sign: Sign) {
        let weight = match row.fate {
            Fate::Dropped | Fate::Refused | Fate::Unanswered => u64::from(row.lost_us).max(NEVER_US),
            _ => u64::from(row.lost_us),
        };
        sign.apply(&mut self.fates[rank(row.fate)], 1);
        sign.apply(&mut self.failures, row.is_failure().into());
        sign.apply(&mut self.lost_us, row.lost_us.into());
        sign.apply(&mut self.weight, weight);
        self.last_ns = self.last_ns.max(row.start_ns);
    }
}

#[derive(Clone, Copy)]
enum Sign {
    More,
    Less,
}

impl Sign {
    fn apply(self, number: &mut u64, by: u64) {
        *number = match self {
            Self::More => number.saturating_add(by),
            Self::Less => number.saturating_sub(by),
        };
    }
}

/// Totals of one drop site.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    /// The flows.
    pub sum: Sum,
    /// The number of flows with each cause.
    pub causes: BTreeMap<Cause, u64>,
}

impl Drops {
    /// The causes, most frequent first.
    #[must_use]
    pub fn causes(&self) -> Vec<(Cause, u64)> {
        let mut out: Vec<_> = self
            .causes
            .iter()
            .map(|(&cause, &flows)| (cause, flows))
            .collect();
        out.retain(|&(_, flows)| flows > 0);
        out.sort_by_key(|&(cause, flows)| (std::cmp::Reverse(flows), cause));
        out
    }
}

/// Totals over all flows, and by cause, service and drop site.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// All flows.
    pub all: Sum,
    /// By cause.
    pub causes: BTreeMap<Cause, Sum>,
    /// By service and NodePort.
    pub services: BTreeMap<Name, Sum>,
    /// By function, reason and rule ([`Row::drop_site`]).
    pub drops: BTreeMap<Name, Drops>,
    /// Fates by the second in which the flow started.
    seconds: VecDeque<[u32; FATES]>,
    /// The first of these seconds.
    first_second: u64,
}

impl Totals {
    /// Counts a flow.
    pub fn add(&mut self, row: &Row) {
        self.count(row, Sign::More);
    }

    /// Uncounts a flow that changed.
    pub fn remove(&mut self, row: &Row) {
        self.count(row, Sign::Less);
    }

    fn count(&mut self, row: &Row, sign: Sign) {
        self.all.count(row, sign);
        if let Some(cause) = row.cause {
            let own = Row {
                lost_us: row.lost_us.saturating_sub(row.other_us),
                ..*row
            };
            self.causes.entry(cause).or_default().count(&own, sign);
        }
        if let Some(other) = row.other_cause {
            let sum = self.causes.entry(other).or_default();
            sign.apply(&mut sum.lost_us, row.other_us.into());
            sign.apply(&mut sum.weight, row.other_us.into());
            sum.last_ns = sum.last_ns.max(row.start_ns);
        }
        if self.services.len() < MAX_KEYS || self.services.contains_key(&row.service) {
            self.services.entry(row.service).or_default().count(row, sign);
        }
        if !row.drop_site.is_none()
            && (self.drops.len() < MAX_KEYS || self.drops.contains_key(&row.drop_site))
        {
            let drops = self.drops.entry(row.drop_site).or_default();
            drops.sum.count(row, sign);
            if let Some(cause) = row.cause {
                sign.apply(drops.causes.entry(cause).or_default(), 1);
            }
        }
        self.count_second(row, sign);
    }

    fn count_second(&mut self, row: &Row, sign: Sign) {
        let second = row.start_ns / 1_000_000_000;
        if self.seconds.is_empty() {
            self.first_second = second;
        }
        // A failure is reported later than flows that started after it.
        while second < self.first_second && self.seconds.len() < MAX_SECONDS {
            self.seconds.push_front([0; FATES]);
            self.first_second -= 1;
        }
        if second < self.first_second {
            return;
        }
        let past_end = (second - self.first_second + 1).saturating_sub(self.seconds.len() as u64);
        if past_end > MAX_SECONDS as u64 {
            self.seconds.clear();
            self.first_second = second;
            self.seconds.push_back([0; FATES]);
        } else {
            for _ in 0..past_end {
                self.seconds.push_back([0; FATES]);
            }
        }
        while self.seconds.len() > MAX_SECONDS {
            self.seconds.pop_front();
            self.first_second += 1;
        }
        let index = usize::try_from(second - self.first_second).unwrap_or(usize::MAX);
        if let Some(counts) = self.seconds.get_mut(index) {
            let count = &mut counts[rank(row.fate)];
            *count = match sign {
                Sign::More => count.saturating_add(1),
                Sign::Less => count.saturating_sub(1),
            };
        }
    }

    /// The seconds from the first flow to this time; 0 without flows.
    #[must_use]
    pub fn age(&self, now_ns: u64) -> u64 {
        let since_first = (now_ns / 1_000_000_000).saturating_sub(self.first_second) + 1;
        if self.seconds.is_empty() { 0 } else { since_first }
    }

    /// The number of flows with a fate in each of the last `spans` spans of `seconds` each, the newest last.
    #[must_use]
    pub fn spans(&self, fate: Fate, now_ns: u64, spans: usize, seconds: u64) -> Vec<u64> {
        let mut out = vec![0; spans];
        let seconds = seconds.max(1);
        let last = now_ns / 1_000_000_000 / seconds;
        let rank = rank(fate);
        for (second, counts) in (self.first_second..).zip(&self.seconds) {
            let Some(back) = last.checked_sub(second / seconds) else {
                continue;
            };
            let place = usize::try_from(back)
                .ok()
                .and_then(|back| spans.checked_sub(back + 1));
            if let Some(place) = place {
                out[place] += u64::from(counts[rank]);
            }
        }
        out
    }

    /// The causes, worst first.
    #[must_use]
    pub fn causes(&self) -> Vec<(Cause, &Sum)> {
        let mut out: Vec<_> = self
            .causes
            .iter()
            .filter(|(_, sum)| sum.flows() > 0 || sum.lost_us > 0)
            .map(|(cause, sum)| (*cause, sum))
            .collect();
        out.sort_by_key(|(cause, sum)| (std::cmp::Reverse((sum.weight, sum.flows())), *cause));
        out
    }

    /// The services, worst first.
    #[must_use]
    pub fn services(&self) -> Vec<(Name, &Sum)> {
        let mut out: Vec<_> = self
            .services
            .iter()
            .filter(|(_, sum)| sum.flows() > 0)
            .map(|(name, sum)| (*name, sum))
            .collect();
        out.sort_by_key(|(name, sum)| (std::cmp::Reverse((sum.weight, sum.flows())), *name));
        out
    }

    /// The drop sites, busiest first.
    #[must_use]
    pub fn drops(&self) -> Vec<(Name, &Drops)> {
        let mut out: Vec<_> = self
            .drops
            .iter()
            .filter(|(_, drops)| drops.sum.flows() > 0)
            .map(|(name, drops)| (*name, drops))
            .collect();
        out.sort_by_key(|(name, drops)| (std::cmp::Reverse(drops.sum.flows()), *name));
        out
    }
}
