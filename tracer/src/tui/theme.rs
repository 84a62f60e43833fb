//! How things look: colours for what the terminal can show, and signs. Colour is never the only sign.

use ratatui::style::{Color, Modifier, Style};

use crate::flow::fate::Fate;

/// How many colours there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// None: bold, dim and reversed alone.
    #[default]
    Mono,
    /// The sixteen of old terminals, as the user has set them.
    Sixteen,
    /// 256.
    Many,
    /// Any.
    True,
}

impl Depth {
    /// What a terminal can show, as it says in `TERM` and `COLORTERM`.
    #[must_use]
    pub fn of_terminal(term: &str, colorterm: &str) -> Self {
        match term {
            "dumb" | "vt100" | "vt102" | "vt220" => Self::Mono,
            _ if matches!(colorterm, "truecolor" | "24bit") => Self::True,
            _ if term.contains("256") || term.contains("direct") => Self::Many,
            _ => Self::Sixteen,
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Theme {
    /// How many colours there are.
    pub depth: Depth,
    /// Only signs of ASCII.
    pub is_ascii: bool,
}

/// The signs.
#[derive(Debug)]
pub struct Signs {
    /// There is more.
    pub more: &'static str,
    /// Bars of growing height, the first of which is none.
    pub bars: &'static [&'static str; 9],
    /// Lies between things.
    pub line: &'static str,
    /// The selected one.
    pub cursor: &'static str,
    /// From here to there.
    pub to: &'static str,
    /// The packet goes in, the answer comes back, something else happens, the packet ends here.
    pub inward: &'static str,
    /// See `inward`.
    pub back: &'static str,
    /// See `inward`.
    pub there: &'static str,
    /// See `inward`.
    pub end: &'static str,
    /// A place where the packet is not.
    pub rail: &'static str,
    /// Sorted upwards, and downwards.
    pub up: &'static str,
    /// See `up`.
    pub down: &'static str,
    /// Part of a bar that is full, and one that is empty.
    pub full: &'static str,
    /// See `full`.
    pub empty: &'static str,
}

static UNICODE: Signs = Signs {
    more: "…",
    bars: &[" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
    line: "─",
    cursor: "▌",
    to: "→",
    inward: "▶",
    back: "◀",
    there: "●",
    end: "✗",
    rail: "│",
    up: "▲",
    down: "▼",
    full: "━",
    empty: "─",
};

static ASCII: Signs = Signs {
    more: "~",
    bars: &[" ", ".", ".", ":", ":", "-", "=", "#", "#"],
    line: "-",
    cursor: ">",
    to: "->",
    inward: ">",
    back: "<",
    there: "o",
    end: "x",
    rail: "|",
    up: "^",
    down: "v",
    full: "=",
    empty: "-",
};

/// What a colour stands for. None is set for the ground, so that it fits light and dark terminals.
#[derive(Clone, Copy)]
enum Tone {
    Good,
    Slow,
    Bad,
    Odd,
    Key,
}

impl Theme {
    /// The signs.
    #[must_use]
    pub fn signs(self) -> &'static Signs {
        if self.is_ascii { &ASCII } else { &UNICODE }
    }

    fn tone(self, tone: Tone) -> Style {
        let style = Style::new();
        // Of middle brightness: they can be read on white and on black.
        match self.depth {
            Depth::Mono => style,
            Depth::Sixteen => style.fg(match tone {
                Tone::Good => Color::Green,
                Tone::Slow => Color::Yellow,
                Tone::Bad => Color::Red,
                Tone::Odd => Color::Magenta,
                Tone::Key => Color::Cyan,
            }),
            Depth::Many => style.fg(Color::Indexed(match tone {
                Tone::Good => 34,
                Tone::Slow => 172,
                Tone::Bad => 160,
                Tone::Odd => 134,
                Tone::Key => 32,
            })),
            Depth::True => style.fg(match tone {
                Tone::Good => Color::Rgb(0x2e, 0x9e, 0x44),
                Tone::Slow => Color::Rgb(0xc9, 0x7b, 0x0a),
                Tone::Bad => Color::Rgb(0xd6, 0x3b, 0x3b),
                Tone::Odd => Color::Rgb(0xa4, 0x5c, 0xc4),
                Tone::Key => Color::Rgb(0x1f, 0x86, 0xc7),
            }),
        }
    }

    /// A fate, by colour; in mono what went wrong is bold.
    #[must_use]
    pub fn fate(self, fate: Fate) -> Style {
        match fate {
            Fate::Established => self.tone(Tone::Good),
            Fate::Stalled => self.tone(Tone::Slow).add_modifier(Modifier::BOLD),
            Fate::Dropped | Fate::Refused => self.tone(Tone::Bad).add_modifier(Modifier::BOLD),
            Fate::Unanswered => self.tone(Tone::Odd).add_modifier(Modifier::BOLD),
            Fate::Pending => self.dim(),
        }
    }

    /// A fate, by sign.
    #[must_use]
    pub fn fate_sign(self, fate: Fate) -> &'static str {
        match (fate, self.is_ascii) {
            (Fate::Established, false) => "✓",
            (Fate::Established, true) => "+",
            (Fate::Stalled, _) => "~",
            (Fate::Dropped, false) => "✗",
            (Fate::Dropped, true) => "x",
            (Fate::Refused, _) => "!",
            (Fate::Unanswered, _) => "?",
            (Fate::Pending, _) => ".",
        }
    }

    /// What is of no great interest.
    #[must_use]
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Headings.
    #[must_use]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What is selected.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A key that can be pressed.
    #[must_use]
    pub fn key(self) -> Style {
        self.tone(Tone::Key).add_modifier(Modifier::BOLD)
    }

    /// A warning.
    #[must_use]
    pub fn warning(self) -> Style {
        self.tone(Tone::Bad).add_modifier(Modifier::BOLD)
    }
}
