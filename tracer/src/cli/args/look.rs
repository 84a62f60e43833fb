//! How the screen looks.

use std::{
    env,
    io::{IsTerminal as _, stdin, stdout},
};

use clap::{Args as ClapArgs, ValueEnum};

use crate::tui::theme::{Depth, Theme};

/// Options of what has a screen.
#[derive(Clone, Debug, ClapArgs)]
pub struct Look {
    /// Colours on the screen (`NO_COLOR` is minded)
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub color: Color,
    /// Only signs of ASCII on the screen
    #[arg(long)]
    pub ascii: bool,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Where the terminal has them
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Look {
    /// Is there a terminal that a screen can be shown on?
    #[must_use]
    pub fn has_terminal() -> bool {
        stdin().is_terminal() && stdout().is_terminal() && env::var("TERM").is_ok_and(|term| term != "dumb")
    }

    /// The look for this terminal.
    #[must_use]
    pub fn theme(&self) -> Theme {
        let read = |name: &str| env::var(name).unwrap_or_default();
        let term = read("TERM");
        let depth = Depth::of_terminal(&term, &read("COLORTERM"));
        let is_plain = !read("NO_COLOR").is_empty();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .map(read)
            .find(|locale| !locale.is_empty())
            .unwrap_or_default()
            .to_lowercase();
        let has_unicode = locale.is_empty() || locale.contains("utf-8") || locale.contains("utf8");
        Theme {
            depth: match self.color {
                Color::Never => Depth::Mono,
                Color::Auto if is_plain => Depth::Mono,
                Color::Always if depth == Depth::Mono => Depth::Sixteen,
                Color::Auto | Color::Always => depth,
            },
            // The console of Linux has few signs.
            is_ascii: self.ascii || !has_unicode || term == "linux",
        }
    }
}
