//! Interned texts: what many rows share is stored once.

use std::{collections::HashMap, sync::Arc};

/// A text in [`Names`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(u32);

impl Name {
    /// No text.
    pub const NONE: Self = Self(0);

    /// Whether the text is empty.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// The most texts kept. Backends come and go; any further text is shown as [`MANY`].
const MAX: usize = 1 << 20;
/// The placeholder for every text that is not kept.
const MANY: &str = "(too many to name)";

/// The texts.
#[derive(Debug)]
pub struct Names {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            texts: vec![Arc::from(""), Arc::from(MANY)],
            numbers: HashMap::from([(Arc::from(""), 0), (Arc::from(MANY), 1)]),
        }
    }
}

impl Names {
    /// Interns a text.
    pub fn keep(&mut self, text: &str) -> Name {
        if let Some(&number) = self.numbers.get(text) {
            return Name(number);
        }
        let (Ok(number), true) = (u32::try_from(self.texts.len()), self.texts.len() < MAX) else {
            return Name(1);
        };
        let text: Arc<str> = Arc::from(text);
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        Name(number)
    }

    /// The text that was interned under this name.
    #[must_use]
    pub fn text(&self, name: Name) -> &str {
        usize::try_from(name.0)
            .ok()
            .and_then(|index| self.texts.get(index))
            .map_or("", |text| text)
    }
}
