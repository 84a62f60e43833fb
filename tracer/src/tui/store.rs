//! The flows that are kept: a row of each, and the details of the latest.

use std::collections::{HashMap, VecDeque};

use super::{flow_detail::FlowDetail, row::Row};

/// The most flows kept.
pub const MAX_ROWS: usize = 1_000_000;
/// The number of oldest flows forgotten at once when there are more.
const FORGET: usize = MAX_ROWS / 64;
/// The most steps of failures kept, and as many of other flows. A step takes about 300 bytes.
const MAX_STEPS: usize = 60_000;

/// Rows in the order in which they were first reported, numbered from 0.
#[derive(Debug)]
pub struct Store {
    rows: VecDeque<Row>,
    /// The number of the oldest row that is kept.
    first: u64,
    /// Row numbers by flow.
    by_id: HashMap<u64, u64>,
    /// While the screen is frozen: rows that have changed since, as they were.
    frozen: Option<HashMap<u64, Row>>,
    failures: Details,
    others: Details,
    capacity: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(MAX_ROWS)
    }
}

/// A bounded cache of details; the oldest are evicted first.
#[derive(Debug, Default)]
struct Details {
    by_id: HashMap<u64, FlowDetail>,
    order: VecDeque<u64>,
    steps: usize,
}

impl Details {
    fn put(&mut self, id: u64, detail: FlowDetail) {
        self.remove(id);
        self.steps += detail.weight();
        self.by_id.insert(id, detail);
        self.order.push_back(id);
        while self.steps > MAX_STEPS {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(detail) = self.by_id.remove(&oldest) {
                self.steps -= detail.weight();
            }
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(detail) = self.by_id.remove(&id) {
            self.steps -= detail.weight();
            // A flow is reported again soon, if at all: it is near the end.
            if let Some(place) = self.order.iter().rposition(|&other| other == id) {
                self.order.remove(place);
            }
        }
    }
}

impl Store {
    /// A store that keeps at most `capacity` flows.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            rows: VecDeque::new(),
            first: 0,
            by_id: HashMap::new(),
            frozen: None,
            failures: Details::default(),
            others: Details::default(),
            capacity,
        }
    }

    /// The number of flows kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the store is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The numbers of the rows that are kept.
    #[must_use]
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.rows.len() as u64
    }

    /// The current row.
    #[must_use]
    pub fn now(&self, number: u64) -> Option<&Row> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.rows.get(index)
    }

    /// The row to show: frozen or current.
    #[must_use]
    pub fn row(&self, number: u64) -> Option<&Row> {
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.get(&number));
        frozen.or_else(|| self.now(number))
    }

    /// The number of a flow's row.
    #[must_use]
    pub fn number(&self, id: u64) -> Option<u64> {
        self.by_id
            .get(&id)
            .copied()
            .filter(|&number| number >= self.first)
    }

    /// The details of a flow, if they are still kept.
    #[must_use]
    pub fn detail(&self, id: u64) -> Option<&FlowDetail> {
        self.failures
            .by_id
            .get(&id)
            .or_else(|| self.others.by_id.get(&id))
    }

    /// Adds or replaces a flow; returns the number of its row.
    pub fn put(&mut self, row: Row, detail: FlowDetail) -> u64 {
        if row.is_failure() {
            self.others.remove(row.id);
            self.failures.put(row.id, detail);
        } else {
            self.failures.remove(row.id);
            self.others.put(row.id, detail);
        }
        if let Some(number) = self.number(row.id) {
            let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
            if let Some(place) = self.rows.get_mut(index) {
                if let Some(frozen) = &mut self.frozen {
                    frozen.entry(number).or_insert(*place);
                }
                *place = row;
                return number;
            }
        }
        let number = self.first + self.rows.len() as u64;
        self.rows.push_back(row);
        self.by_id.insert(row.id, number);
        number
    }

    /// Forgets the oldest flows if there are too many; returns whether it did.
    pub fn forget(&mut self) -> bool {
        if self.rows.len() <= self.capacity {
            return false;
        }
        for _ in 0..FORGET.min(self.capacity / 2 + 1) {
            if let Some(row) = self.rows.pop_front() {
                self.by_id.remove(&row.id);
                self.first += 1;
            }
        }
        true
    }

    /// Keeps showing the rows as they are now, or stops doing so.
    pub fn freeze(&mut self, is_frozen: bool) {
        self.frozen = is_frozen.then(HashMap::new);
    }

    /// Forgets all flows.
    pub fn clear(&mut self) {
        *self = Self {
            first: self.numbers().end,
            frozen: self.frozen.as_ref().map(|_| HashMap::new()),
            ..Self::new(self.capacity)
        };
    }
}
