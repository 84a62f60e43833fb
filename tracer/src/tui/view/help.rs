//! The help, made from the table of the keys.

use ratatui::{
    crossterm::event::{KeyCode, KeyModifiers},
    style::Style,
};

use super::pen::Pen;
use crate::{
    flow::fate::Fate,
    tui::{
        keys::{Place, TABLE},
        model::Model,
        text::wrap,
        theme::Theme,
    },
};

const KEYS: u16 = 14;
const COLUMNS: usize = 44;

/// One line: keys or a heading, and words.
pub struct Line {
    keys: String,
    words: String,
    is_heading: bool,
    fate: Option<Fate>,
}

impl Line {
    fn heading(words: &str) -> Self {
        Self {
            keys: words.to_owned(),
            words: String::new(),
            is_heading: true,
            fate: None,
        }
    }
}

/// Do these keys play a recording, where there is one?
fn plays(keys: &[(KeyCode, KeyModifiers)]) -> bool {
    TABLE
        .iter()
        .any(|row| row.place == Place::Playing && row.keys.iter().any(|key| keys.contains(key)))
}

/// All lines.
#[must_use]
pub fn lines(theme: Theme, is_playing: bool) -> Vec<Line> {
    let mut out = Vec::new();
    for place in Place::ALL {
        if place == Place::Playing && !is_playing {
            continue;
        }
        out.push(Line::heading(place.title()));
        for row in TABLE
            .iter()
            .filter(|row| row.place == place && !row.shown.is_empty())
            .filter(|row| !is_playing || place == Place::Playing || !plays(row.keys))
        {
            for (index, words) in wrap(row.does, COLUMNS).into_iter().enumerate() {
                out.push(Line {
                    keys: if index == 0 {
                        row.shown.to_owned()
                    } else {
                        String::new()
                    },
                    words,
                    is_heading: false,
                    fate: None,
                });
            }
        }
    }
    out.push(Line::heading("fates"));
    for &fate in Fate::ALL {
        for (index, words) in wrap(fate.meaning(), COLUMNS).into_iter().enumerate() {
            out.push(Line {
                keys: if index == 0 {
                    format!("{} {fate}", theme.fate_sign(fate))
                } else {
                    String::new()
                },
                words,
                is_heading: false,
                fate: Some(fate),
            });
        }
    }
    out
}

pub(super) fn draw(model: &Model, top: usize, mut pen: Pen<'_>) {
    let theme = model.theme;
    let all = lines(theme, model.playing.is_some());
    let height = pen.lines() - usize::from(all.len() > top + pen.lines());
    for (y, line) in (0..).zip(all.iter().skip(top).take(height)) {
        let style = match (line.is_heading, line.fate) {
            (true, _) => theme.heading(),
            (_, Some(fate)) => theme.fate(fate),
            _ => theme.key(),
        };
        pen.put(u16::from(!line.is_heading), y, &line.keys, style);
        pen.put(1 + KEYS, y, &line.words, Style::new());
    }
    if top + height < all.len() {
        let said = format!(" {} more lines: j ", all.len() - top - height);
        let room = pen.width();
        let y = pen.height() - 1;
        pen.number(0, y, &said, room, theme.selected());
    }
}
