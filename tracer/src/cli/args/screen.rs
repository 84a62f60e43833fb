//! Options of commands with a screen.

use std::{
    env,
    io::{IsTerminal as _, stdin, stdout},
};

use clap::{Args as ClapArgs, ValueEnum};

use crate::tui::theme::{Depth, Theme};

/// Options of commands with a screen.
#[derive(Clone, Debug, ClapArgs)]
pub struct ScreenOptions {
    /// Colours: auto (honours `NO_COLOR`), always or never
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub color: Color,
    /// ASCII only on the screen
    #[arg(long)]
    pub ascii: bool,
}

/// The use of colours on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Where the terminal supports them
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ScreenOptions {
    /// Whether there is a terminal that can show a screen.
    #[must_use]
    pub fn has_terminal() -> bool {
        stdin().is_terminal() && stdout().is_terminal() && env::var("TERM").is_ok_and(|term| term != "dumb")
    }

    /// The theme for this terminal.
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
            // The Linux console has few glyphs.
            is_ascii: self.ascii || !has_unicode || term == "linux",
        }
    }
}
