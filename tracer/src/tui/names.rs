//! Texts that many rows share, kept once.

use std::{collections::HashMap, sync::Arc};

/// A text that is kept in [`Names`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(u32);

impl Name {
    /// No text.
    pub const NONE: Self = Self(0);

    /// Is there none?
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// So many texts are kept. Backends come and go; what is beyond this is shown as [`MANY`].
const MOST: usize = 1 << 20;
/// In place of a text that is not kept.
const MANY: &str = "(too many to name)";

/// See the module.
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
    /// Keeps a text.
    pub fn keep(&mut self, text: &str) -> Name {
        if let Some(&number) = self.numbers.get(text) {
            return Name(number);
        }
        let (Ok(number), true) = (u32::try_from(self.texts.len()), self.texts.len() < MOST) else {
            return Name(1);
        };
        let text: Arc<str> = Arc::from(text);
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        Name(number)
    }

    /// The text.
    #[must_use]
    pub fn text(&self, name: Name) -> &str {
        usize::try_from(name.0)
            .ok()
            .and_then(|index| self.texts.get(index))
            .map_or("", |text| text)
    }
}
