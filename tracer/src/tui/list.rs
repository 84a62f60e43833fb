//! The sorted and filtered list of flows, built without ever scanning all of them at once: updates are merged in, and
//! after a change of order or filter the rows are scanned in parts, newest first.

use std::ops::Range;

use super::{filter::Filter, names::Names, row::Row, store::Store, totals};

/// The rows scanned for one frame: with a million rows kept, they take about 10 ms.
pub const ROWS_PER_FRAME: u64 = 30_000;

/// A column of the list, and of its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
    /// Time of the first SYN.
    #[default]
    Time,
    /// The fate, worst first, failures before others.
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
    /// Time to connect.
    Connect,
    /// Time lost.
    Lost,
}

impl Column {
    /// Every column, in the order of the screen.
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

    /// The next column.
    #[must_use]
    pub fn next(self) -> Self {
        let place = Self::ALL.iter().position(|&column| column == self).unwrap_or(0);
        Self::ALL[(place + 1) % Self::ALL.len()]
    }

    /// The heading.
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
            Self::Lost => "time lost",
        }
    }

    /// Whether the largest values are the most interesting.
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
            Self::Fate => (totals::rank(row.fate) as u64, u64::from(!row.is_failure())),
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

/// A row of the list: its sort key and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    key: Key,
    /// The number of the row.
    pub number: u64,
}

/// The list. Entries are kept in ascending order and read backwards if the order is descending.
#[derive(Debug, Default)]
pub struct List {
    /// The column that flows are sorted by.
    pub column: Column,
    /// Whether the largest values come first.
    pub is_descending: bool,
    filter: Filter,
    entries: Vec<Entry>,
    /// Entries to merge in, and entries to take out.
    added: Vec<Entry>,
    removed: Vec<Entry>,
    spare: Vec<Entry>,
    /// Rows not scanned yet since order or filter changed.
    unscanned: Range<u64>,
}

impl List {
    /// The number of rows listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no row is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of rows still to be scanned.
    #[must_use]
    pub fn unscanned(&self) -> u64 {
        self.unscanned.end.saturating_sub(self.unscanned.start)
    }

    /// The filter that selects the listed flows.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The number of the row at a place on the screen.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<u64> {
        let place = if self.is_descending {
            self.entries.len().checked_sub(place + 1)?
        } else {
            place
        };
        self.entries.get(place).map(|entry| entry.number)
    }

    /// The place of a row on the screen; as an error the place where it would be.
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

    /// Adds a row, or replaces the one that was `before`.
    pub fn put(&mut self, number: u64, before: Option<&Row>, row: &Row, names: &Names) {
        if self.unscanned.contains(&number) {
            return;
        }
        if let Some(before) = before.filter(|before| self.filter.matches(before, names)) {
            self.removed.push(self.entry(number, before, names));
        }
        if self.filter.matches(row, names) {
            self.added.push(self.entry(number, row, names));
        }
    }

    /// Starts over after a change of order or filter.
    pub fn rebuild(&mut self, filter: Option<Filter>, store: &Store) {
        if let Some(filter) = filter {
            self.filter = filter;
        }
        self.entries.clear();
        self.added.clear();
        self.removed.clear();
        self.unscanned = store.numbers();
    }

    /// Removes the rows before this one.
    pub fn forget(&mut self, first: u64) {
        for entries in [&mut self.entries, &mut self.added, &mut self.removed] {
            entries.retain(|entry| entry.number >= first);
        }
        self.unscanned.start = self.unscanned.start.max(first).min(self.unscanned.end);
    }

    /// Merges updates in, and scans the next rows.
    pub fn refresh(&mut self, store: &Store, names: &Names) {
        let from = self
            .unscanned
            .end
            .saturating_sub(ROWS_PER_FRAME)
            .max(self.unscanned.start);
        for number in from..self.unscanned.end.max(from) {
            if let Some(row) = store.now(number)
                && self.filter.matches(row, names)
            {
                self.added.push(self.entry(number, row, names));
            }
        }
        self.unscanned.end = from.max(self.unscanned.start);
        self.merge();
    }

    fn merge(&mut self) {
        if self.added.is_empty() && self.removed.is_empty() {
            return;
        }
        self.added.sort_unstable();
        self.removed.sort_unstable();
        let is_behind = match (self.entries.last(), self.added.first()) {
            (Some(last), Some(first)) => last < first,
            _ => true,
        };
        if self.removed.is_empty() && is_behind {
            self.entries.append(&mut self.added);
            self.entries.dedup();
            return;
        }
        self.spare.clear();
        self.spare.reserve(self.entries.len() + self.added.len());
        let (mut old, mut new, mut gone) = (&self.entries[..], &self.added[..], &self.removed[..]);
        // A row updated several times between two frames was added and removed: it stays if it was added again.
        while let Some(entry) = old.first().into_iter().chain(new.first()).min().copied() {
            take_before(&mut gone, entry);
            let came = take(&mut old, entry) + take(&mut new, entry);
            if came > take(&mut gone, entry) {
                self.spare.push(entry);
            }
        }
        std::mem::swap(&mut self.entries, &mut self.spare);
        self.added.clear();
        self.removed.clear();
    }
}

/// Removes all entries equal to this one from the front; returns how many.
fn take(entries: &mut &[Entry], entry: Entry) -> usize {
    let count = entries.iter().take_while(|other| **other == entry).count();
    *entries = &entries[count..];
    count
}

/// Removes all entries before this one from the front.
fn take_before(entries: &mut &[Entry], entry: Entry) {
    let count = entries.iter().take_while(|other| **other < entry).count();
    *entries = &entries[count..];
}
