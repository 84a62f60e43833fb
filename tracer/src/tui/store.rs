//! The flows that are remembered: a row of each, and the stories of the last ones.

use std::collections::{HashMap, VecDeque};

use super::{row::Row, story::Story};

/// So many flows are remembered.
pub const MOST_ROWS: usize = 1_000_000;
/// So many are forgotten at once when there are more: the oldest.
const FORGET: usize = MOST_ROWS / 64;
/// So many steps are remembered, of flows that went wrong and of all others. A step takes some 300 bytes.
const MOST_STEPS: usize = 60_000;

/// See the module. Rows stand in the order in which they were first told of, and have numbers from 0 up.
#[derive(Debug)]
pub struct Store {
    rows: VecDeque<Row>,
    /// The number of the first row that is left.
    first: u64,
    /// Numbers of rows by flow.
    by_id: HashMap<u64, u64>,
    /// While the screen stands still: rows as they were then, if they have changed since.
    frozen: Option<HashMap<u64, Row>>,
    sick: Shelf,
    sound: Shelf,
    most: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(MOST_ROWS)
    }
}

/// Stories, the oldest first.
#[derive(Debug, Default)]
struct Shelf {
    stories: HashMap<u64, Story>,
    order: VecDeque<u64>,
    steps: usize,
}

impl Shelf {
    fn put(&mut self, id: u64, story: Story) {
        self.take(id);
        self.steps += story.weight();
        self.stories.insert(id, story);
        self.order.push_back(id);
        while self.steps > MOST_STEPS {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(story) = self.stories.remove(&oldest) {
                self.steps -= story.weight();
            }
        }
    }

    fn take(&mut self, id: u64) {
        if let Some(story) = self.stories.remove(&id) {
            self.steps -= story.weight();
            // A flow is told of again soon, if at all: it stands near the end.
            if let Some(place) = self.order.iter().rposition(|&other| other == id) {
                self.order.remove(place);
            }
        }
    }
}

/// What putting a row did.
#[derive(Debug, PartialEq, Eq)]
pub struct Put {
    /// The row's number.
    pub number: u64,
    /// Is it one that was there?
    pub was_there: bool,
}

impl Store {
    /// One that remembers so many flows.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            rows: VecDeque::new(),
            first: 0,
            by_id: HashMap::new(),
            frozen: None,
            sick: Shelf::default(),
            sound: Shelf::default(),
            most,
        }
    }

    /// How many flows are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Is none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The numbers of the rows that are there.
    #[must_use]
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.rows.len() as u64
    }

    /// The row as it is now.
    #[must_use]
    pub fn now(&self, number: u64) -> Option<&Row> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.rows.get(index)
    }

    /// The row as the screen shows it.
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

    /// The story of a flow, if it is still remembered.
    #[must_use]
    pub fn story(&self, id: u64) -> Option<&Story> {
        self.sick.stories.get(&id).or_else(|| self.sound.stories.get(&id))
    }

    /// Takes in what is told of a flow.
    pub fn put(&mut self, row: Row, story: Story) -> Put {
        if row.is_trouble() {
            self.sound.take(row.id);
            self.sick.put(row.id, story);
        } else {
            self.sick.take(row.id);
            self.sound.put(row.id, story);
        }
        if let Some(number) = self.number(row.id) {
            let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
            if let Some(place) = self.rows.get_mut(index) {
                if let Some(frozen) = &mut self.frozen {
                    frozen.entry(number).or_insert(*place);
                }
                *place = row;
                return Put {
                    number,
                    was_there: true,
                };
            }
        }
        let number = self.first + self.rows.len() as u64;
        self.rows.push_back(row);
        self.by_id.insert(row.id, number);
        Put {
            number,
            was_there: false,
        }
    }

    /// Forgets the oldest if there are too many; gives whether it did.
    pub fn forget(&mut self) -> bool {
        if self.rows.len() <= self.most {
            return false;
        }
        for _ in 0..FORGET.min(self.most / 2 + 1) {
            if let Some(row) = self.rows.pop_front() {
                self.by_id.remove(&row.id);
                self.first += 1;
            }
        }
        true
    }

    /// The screen stands still from now on, or no more.
    pub fn freeze(&mut self, is_frozen: bool) {
        self.frozen = is_frozen.then(HashMap::new);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self {
            first: self.numbers().end,
            frozen: self.frozen.as_ref().map(|_| HashMap::new()),
            ..Self::new(self.most)
        };
    }
}
