//! Colours for what the terminal supports, and symbols. Colour never carries meaning alone.

use ratatui::style::{Color, Modifier, Style};

use crate::flow::fate::Fate;

/// The number of colours of the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// None: only bold, dim and reverse.
    #[default]
    Mono,
    /// 16, in the user's palette.
    Sixteen,
    /// 256.
    Many,
    /// 24-bit.
    True,
}

impl Depth {
    /// The colours that `TERM` and `COLORTERM` promise.
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

/// The look of the screen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Theme {
    /// The number of colours of the terminal.
    pub depth: Depth,
    /// Whether the screen uses ASCII only.
    pub is_ascii: bool,
}

/// The symbols that the screen draws with.
#[derive(Debug)]
pub struct Symbols {
    /// Marks cut text.
    pub more: &'static str,
    /// Bars of growing height, the first empty.
    pub bars: &'static [&'static str; 9],
    /// A horizontal line.
    pub line: &'static str,
    /// Marks the selected line.
    pub cursor: &'static str,
    /// An arrow between two addresses.
    pub to: &'static str,
    /// A step of the request, of the reply, of neither, and the end of a packet.
    pub inward: &'static str,
    /// See `inward`.
    pub back: &'static str,
    /// See `inward`.
    pub there: &'static str,
    /// See `inward`.
    pub end: &'static str,
    /// A column of the ladder without a step.
    pub rail: &'static str,
    /// Ascending and descending order.
    pub up: &'static str,
    /// See `up`.
    pub down: &'static str,
    /// The full and the empty part of a progress bar.
    pub full: &'static str,
    /// See `full`.
    pub empty: &'static str,
}

static UNICODE: Symbols = Symbols {
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

static ASCII: Symbols = Symbols {
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

/// The meaning of a colour. The background is left alone, so that light and dark terminals both work.
#[derive(Clone, Copy)]
enum Tone {
    Good,
    Slow,
    Bad,
    Elsewhere,
    Key,
}

/// A fate, and whether the flow is a failure.
pub type Outcome = (Fate, bool);

impl Theme {
    /// The symbols for Unicode or ASCII.
    #[must_use]
    pub fn symbols(self) -> &'static Symbols {
        if self.is_ascii { &ASCII } else { &UNICODE }
    }

    fn tone(self, tone: Tone) -> Style {
        let style = Style::new();
        // Medium brightness: readable on white and on black.
        match self.depth {
            Depth::Mono => style,
            Depth::Sixteen => style.fg(match tone {
                Tone::Good => Color::Green,
                Tone::Slow => Color::Yellow,
                Tone::Bad => Color::Red,
                Tone::Elsewhere => Color::Magenta,
                Tone::Key => Color::Cyan,
            }),
            Depth::Many => style.fg(Color::Indexed(match tone {
                Tone::Good => 34,
                Tone::Slow => 172,
                Tone::Bad => 160,
                Tone::Elsewhere => 134,
                Tone::Key => 32,
            })),
            Depth::True => style.fg(match tone {
                Tone::Good => Color::Rgb(0x2e, 0x9e, 0x44),
                Tone::Slow => Color::Rgb(0xc9, 0x7b, 0x0a),
                Tone::Bad => Color::Rgb(0xd6, 0x3b, 0x3b),
                Tone::Elsewhere => Color::Rgb(0xa4, 0x5c, 0xc4),
                Tone::Key => Color::Rgb(0x1f, 0x86, 0xc7),
            }),
        }
    }

    /// The style of a fate; without colours, failures are bold.
    #[must_use]
    pub fn fate(self, fate: Fate) -> Style {
        match fate {
            Fate::Established => self.tone(Tone::Good),
            Fate::Stalled => self.tone(Tone::Slow).add_modifier(Modifier::BOLD),
            Fate::Dropped | Fate::Refused => self.tone(Tone::Bad).add_modifier(Modifier::BOLD),
            Fate::Unanswered => self.tone(Tone::Elsewhere).add_modifier(Modifier::BOLD),
            Fate::Pending => self.dim(),
        }
    }

    /// The symbol of a fate.
    #[must_use]
    pub fn fate_symbol(self, fate: Fate) -> &'static str {
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

    /// The style of a fate and whether it is a failure: an established flow may be one.
    #[must_use]
    pub fn outcome(self, (fate, is_failure): Outcome) -> Style {
        match fate {
            Fate::Established if is_failure => self.tone(Tone::Elsewhere).add_modifier(Modifier::BOLD),
            _ => self.fate(fate),
        }
    }

    /// The symbol of a fate and whether it is a failure.
    #[must_use]
    pub fn outcome_symbol(self, (fate, is_failure): Outcome) -> &'static str {
        match (fate, self.is_ascii) {
            (Fate::Established, false) if is_failure => "≠",
            (Fate::Established, true) if is_failure => "#",
            _ => self.fate_symbol(fate),
        }
    }

    /// The style of unimportant text.
    #[must_use]
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The style of headings.
    #[must_use]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The style of selected text.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The style of a key's name.
    #[must_use]
    pub fn key(self) -> Style {
        self.tone(Tone::Key).add_modifier(Modifier::BOLD)
    }

    /// The style of a warning.
    #[must_use]
    pub fn warning(self) -> Style {
        self.tone(Tone::Bad).add_modifier(Modifier::BOLD)
    }
}
