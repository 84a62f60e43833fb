//! The list of flows, sorted and filtered, without ever going over all of them at once: what is new is merged in, and
//! after a change of order or filter the rows are gone through piece by piece, the newest first.

use std::ops::Range;

use super::{filter::Filter, names::Names, row::Row, store::Store, totals};

/// So many rows are looked at for one frame: with a million rows, these take some 10 ms.
pub const PIECE: u64 = 30_000;

/// What flows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
    /// When the first SYN came.
    #[default]
    Time,
    /// How bad the fate is.
    Fate,
    /// The client's address.
    Client,
    /// Service and NodePort.
    Service,
    /// The backend's address.
    Backend,
    /// The cause's name.
    Cause,
    /// SYNs on the wire.
    Syns,
    /// Time until it was connected.
    Connect,
    /// Time lost.
    Lost,
}

impl Column {
    /// All, in the order of the screen.
    pub const ALL: [Self; 9] = [
        Self::Time,
        Self::Fate,
        Self::Client,
        Self::Service,
        Self::Backend,
        Self::Syns,
        Self::Connect,
        Self::Lost,
        Self::Cause,
    ];

    /// The column behind it.
    #[must_use]
    pub fn next(self) -> Self {
        let place = Self::ALL.iter().position(|&column| column == self).unwrap_or(0);
        Self::ALL[(place + 1) % Self::ALL.len()]
    }

    /// What stands above it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Fate => "fate",
            Self::Client => "client",
            Self::Service => "service",
            Self::Backend => "backend",
            Self::Cause => "cause",
            Self::Syns => "SYNs",
            Self::Connect => "connect",
            Self::Lost => "lost",
        }
    }

    /// Is the last of them the most interesting?
    #[must_use]
    pub const fn is_descending(self) -> bool {
        matches!(self, Self::Time | Self::Syns | Self::Connect | Self::Lost)
    }

    fn key(self, row: &Row, names: &Names) -> Key {
        let text = |text: &str| {
            let mut bytes = [0; 16];
            let length = text.len().min(16);
            bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
            let [high, low] = [0, 8].map(|at| {
                let mut half = [0; 8];
                half.copy_from_slice(&bytes[at..at + 8]);
                u64::from_be_bytes(half)
            });
            (high, low)
        };
        match self {
            Self::Time => (row.start_ns, row.id),
            Self::Fate => (totals::rank(row.fate) as u64, 0),
            Self::Client => match row.client.ip() {
                std::net::IpAddr::V4(ip) => (0, u64::from(ip.to_bits()) << 16 | u64::from(row.client_port)),
                std::net::IpAddr::V6(ip) => {
                    let [high, low] = [ip.to_bits() >> 64, ip.to_bits()]
                        .map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default());
                    (high, low)
                }
            },
            Self::Service => text(names.text(row.service)),
            Self::Backend => text(names.text(row.backend)),
            Self::Cause => row.cause.map_or((u64::MAX, 0), |cause| text(cause.name())),
            Self::Syns => (row.syns.into(), 0),
            Self::Connect => (row.connect_us.wrapping_add(1).into(), 0),
            Self::Lost => (row.lost_us.into(), 0),
        }
    }
}

type Key = (u64, u64);

/// A row in the list: what it is sorted by, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    key: Key,
    /// The number of the row.
    pub number: u64,
}

/// See the module. Entries are kept in ascending order, and read backwards when that is wanted.
#[derive(Debug, Default)]
pub struct List {
    /// What flows are sorted by.
    pub column: Column,
    /// The last first?
    pub is_descending: bool,
    filter: Filter,
    entries: Vec<Entry>,
    /// Entries to be merged in, and those to be taken out.
    fresh: Vec<Entry>,
    gone: Vec<Entry>,
    spare: Vec<Entry>,
    /// Rows that were not looked at yet since order or filter changed.
    left: Range<u64>,
}

impl List {
    /// How many rows are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is it empty?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Rows that are still to be looked at.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.end.saturating_sub(self.left.start)
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The row at a place of the screen's order.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<u64> {
        let place = if self.is_descending {
            self.entries.len().checked_sub(place + 1)?
        } else {
            place
        };
        self.entries.get(place).map(|entry| entry.number)
    }

    /// The place of a row in the screen's order; where it would be, if it is not there.
    pub fn place(&self, number: u64, row: &Row, names: &Names) -> Result<usize, usize> {
        let entry = self.entry(number, row, names);
        let found = self.entries.binary_search(&entry);
        let turn = |place: usize, extra: usize| {
            if self.is_descending {
                self.entries.len().saturating_sub(place + extra)
            } else {
                place
            }
        };
        found.map(|place| turn(place, 1)).map_err(|place| turn(place, 0))
    }

    fn entry(&self, number: u64, row: &Row, names: &Names) -> Entry {
        Entry {
            key: self.column.key(row, names),
            number,
        }
    }

    /// Something new is told of a row; `before` is what was told last.
    pub fn put(&mut self, number: u64, before: Option<&Row>, row: &Row, names: &Names) {
        if self.left.contains(&number) {
            return;
        }
        if let Some(before) = before.filter(|before| self.filter.wants(before, names)) {
            self.gone.push(self.entry(number, before, names));
        }
        if self.filter.wants(row, names) {
            self.fresh.push(self.entry(number, row, names));
        }
    }

    /// Another order, or another filter.
    pub fn start_over(&mut self, filter: Option<Filter>, store: &Store) {
        if let Some(filter) = filter {
            self.filter = filter;
        }
        self.entries.clear();
        self.fresh.clear();
        self.gone.clear();
        self.left = store.numbers();
    }

    /// Rows before this one are forgotten.
    pub fn forget(&mut self, first: u64) {
        for entries in [&mut self.entries, &mut self.fresh, &mut self.gone] {
            entries.retain(|entry| entry.number >= first);
        }
        self.left.start = self.left.start.max(first).min(self.left.end);
    }

    /// Takes in what is new, and a piece of what is left to be looked at.
    pub fn refresh(&mut self, store: &Store, names: &Names) {
        let from = self.left.end.saturating_sub(PIECE).max(self.left.start);
        for number in from..self.left.end.max(from) {
            if let Some(row) = store.now(number)
                && self.filter.wants(row, names)
            {
                self.fresh.push(self.entry(number, row, names));
            }
        }
        self.left.end = from.max(self.left.start);
        self.merge();
    }

    fn merge(&mut self) {
        if self.fresh.is_empty() && self.gone.is_empty() {
            return;
        }
        self.fresh.sort_unstable();
        self.gone.sort_unstable();
        let is_behind = match (self.entries.last(), self.fresh.first()) {
            (Some(last), Some(first)) => last < first,
            _ => true,
        };
        if self.gone.is_empty() && is_behind {
            self.entries.append(&mut self.fresh);
            self.entries.dedup();
            return;
        }
        self.spare.clear();
        self.spare.reserve(self.entries.len() + self.fresh.len());
        let (mut old, mut new, mut gone) = (&self.entries[..], &self.fresh[..], &self.gone[..]);
        // What is told of again and again between two frames comes and goes: it is there if it came once more.
        while let Some(entry) = old.first().into_iter().chain(new.first()).min().copied() {
            take_before(&mut gone, entry);
            let came = take(&mut old, entry) + take(&mut new, entry);
            if came > take(&mut gone, entry) {
                self.spare.push(entry);
            }
        }
        std::mem::swap(&mut self.entries, &mut self.spare);
        self.fresh.clear();
        self.gone.clear();
    }
}

/// Takes all entries like this one from the front, and gives how many.
fn take(entries: &mut &[Entry], entry: Entry) -> usize {
    let count = entries.iter().take_while(|other| **other == entry).count();
    *entries = &entries[count..];
    count
}

/// Takes all entries before this one from the front.
fn take_before(entries: &mut &[Entry], entry: Entry) {
    let count = entries.iter().take_while(|other| **other < entry).count();
    *entries = &entries[count..];
}
