//! The help page, made from the table of keys and the list of fates.

use ratatui::{
    crossterm::event::{KeyCode, KeyModifiers},
    style::Style,
};

use super::pen::Pen;
use crate::{
    flow::fate::Fate,
    tui::{
        keys::{Scope, TABLE},
        model::Model,
        text::{quantity, wrap},
        theme::Theme,
        totals::WORST_FIRST,
    },
};

/// The width of the left column.
const KEYS: u16 = 15;
/// The most columns of a text: longer lines are hard to read.
const MAX_TEXT: usize = 72;

/// A line of the page.
pub struct Line {
    left: String,
    text: String,
    style: Style,
    is_heading: bool,
}

/// Whether these keys control playback.
fn is_playback(keys: &[(KeyCode, KeyModifiers)]) -> bool {
    TABLE
        .iter()
        .any(|row| row.scope == Scope::Playback && row.keys.iter().any(|key| keys.contains(key)))
}

/// Adds an entry: its text is wrapped, to the right of `left`.
fn entry(left: &str, text: &str, style: Style, columns: usize, out: &mut Vec<Line>) {
    let room = columns.saturating_sub(usize::from(KEYS) + 1).min(MAX_TEXT);
    for (index, text) in wrap(text, room).into_iter().enumerate() {
        out.push(Line {
            left: if index == 0 {
                left.to_owned()
            } else {
                String::new()
            },
            text,
            style,
            is_heading: false,
        });
    }
}

fn heading(title: &str, theme: Theme) -> Line {
    Line {
        left: title.to_owned(),
        text: String::new(),
        style: theme.heading(),
        is_heading: true,
    }
}

/// All lines, wrapped to `columns`.
#[must_use]
pub fn lines(theme: Theme, is_playing: bool, columns: usize) -> Vec<Line> {
    let mut out = Vec::new();
    for scope in Scope::ALL {
        if scope == Scope::Playback && !is_playing {
            continue;
        }
        out.push(heading(scope.title(), theme));
        for row in TABLE
            .iter()
            .filter(|row| row.scope == scope && !row.shown.is_empty())
            .filter(|row| !is_playing || scope == Scope::Playback || !is_playback(row.keys))
        {
            entry(row.shown, row.text, theme.key(), columns, &mut out);
        }
    }
    out.push(heading("Fates", theme));
    for fate in WORST_FIRST {
        let left = format!("{} {fate}", theme.fate_symbol(fate));
        entry(&left, fate.meaning(), theme.fate(fate), columns, &mut out);
    }
    let misdirected = (Fate::Established, true);
    let left = format!("{} {}", theme.outcome_symbol(misdirected), Fate::Established);
    entry(
        &left,
        "established, but with the wrong backend or with the node itself: counts as a failure",
        theme.outcome(misdirected),
        columns,
        &mut out,
    );
    out
}

pub(super) fn draw(model: &Model, top: usize, mut pen: Pen<'_>) {
    let all = lines(model.theme, model.playing.is_some(), pen.columns());
    let height = pen.lines() - usize::from(all.len() > top + pen.lines());
    for (y, line) in (0..).zip(all.iter().skip(top).take(height)) {
        pen.put(u16::from(!line.is_heading), y, &line.left, line.style);
        pen.put(1 + KEYS, y, &line.text, Style::new());
    }
    if top + height < all.len() {
        let below = quantity((all.len() - top - height) as u64, "more line", "more lines");
        let room = pen.width();
        let y = pen.height() - 1;
        pen.right(0, y, &format!(" {below}: j "), room, model.theme.selected());
    }
}
