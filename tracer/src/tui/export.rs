//! The open tab as text, for a file or the clipboard.

use std::fmt::Write as _;

use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    list::Column,
    message::Command,
    model::{Model, Tab},
    row::Row,
    text::clean,
    view::{self, detail, flows::cell},
};

/// The most flows written to a file.
const MAX_FLOWS: usize = 100_000;
/// The width of a file, in columns.
const COLUMNS: u16 = 120;

/// The command that writes the whole open tab to a file.
#[must_use]
pub fn command(model: &Model) -> Option<Command> {
    let (what, text) = match model.tab {
        Tab::Overview => ("overview", screen(model, 80)),
        Tab::Flows => ("flows", flows(model)),
        Tab::Flow => ("flow", flow(model)),
        Tab::Drops => ("drops", screen(model, model.shown().drops().len() + 1)),
        Tab::Hooks => ("hooks", screen(model, model.hooks.len() + 1)),
    };
    Some(Command::Export { what, text })
}

/// The open or selected flow.
#[must_use]
pub fn copy(model: &Model) -> Option<String> {
    match model.tab {
        Tab::Flow if model.flow_row().is_some() => Some(flow(model)),
        _ => model.selected_row().map(|row| line(model, row)),
    }
}

fn flow(model: &Model) -> String {
    let lines = detail::lines(model, COLUMNS.into());
    let lines = lines.iter().map(|line| {
        let line: String = line.iter().map(|(text, _)| text.as_str()).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn flows(model: &Model) -> String {
    let mut out = String::new();
    let rows =
        (0..model.list.len().min(MAX_FLOWS)).filter_map(|place| model.store.row(model.list.at(place)?));
    for row in rows {
        let _ = writeln!(out, "{}", line(model, row));
    }
    out
}

fn line(model: &Model, row: &Row) -> String {
    let cells = Column::ALL.map(|column| cell(model, row, column));
    let cells: Vec<&str> = cells
        .iter()
        .map(|cell| cell.trim())
        .filter(|cell| !cell.is_empty())
        .collect();
    clean(&format!("flow {}  {}", row.id, cells.join("  "))).into_owned()
}

/// A tab drawn as tall as it needs to be.
fn screen(model: &Model, lines: usize) -> String {
    let height = u16::try_from(lines).unwrap_or(u16::MAX).clamp(1, 500);
    let area = Rect::new(0, 0, COLUMNS, height);
    let mut buffer = Buffer::empty(area);
    view::body(model, area, &mut buffer);
    let text = text_of(&buffer);
    format!("{}\n", text.trim_end())
}

/// The text of a screen.
#[must_use]
pub fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let lines = buffer.content.chunks(width).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}
