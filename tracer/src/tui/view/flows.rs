//! The Flows tab: one line per flow.

use ratatui::style::Style;

use super::pen::Pen;
use crate::{
    diagnose::catalogue,
    flow::fate::Fate,
    tui::{
        filter,
        list::Column,
        model::{Model, Widest},
        row::Row,
        text::{clean, count, fit_end, milliseconds, quantity},
    },
};

/// A column of the table and its width.
struct Shown {
    column: Column,
    width: u16,
}

/// The columns that are always shown, and those that are added while there is room, each with its largest width. A column
/// is only as wide as the widest text it has had.
const ALWAYS: [(Column, u16); 3] = [(Column::Fate, 13), (Column::Client, 21), (Column::Service, 22)];
const WITH_ROOM: [(Column, u16); 5] = [
    (Column::Time, 8),
    (Column::Backend, 21),
    (Column::Lost, 10),
    (Column::Syns, 4),
    (Column::Connect, 8),
];
/// The cause gets the rest, and at least this much before another column is added: the longest name fits.
const CAUSE: u16 = 26;

/// The columns that fit, in the order of the screen.
fn columns(width: u16, widest: Widest) -> Vec<Shown> {
    let needs = |(column, most): (Column, u16)| Shown {
        column,
        width: most.min(widest.of(column)),
    };
    let mut shown: Vec<Shown> = ALWAYS.into_iter().map(needs).collect();
    // The cursor takes one column, and so does each gap.
    let used = |shown: &[Shown]| 1 + shown.iter().map(|shown| shown.width + 1).sum::<u16>();
    for column in WITH_ROOM.into_iter().map(needs) {
        if used(&shown) + column.width + 1 + CAUSE > width {
            break;
        }
        shown.push(column);
    }
    shown.sort_by_key(|shown| Column::ALL.iter().position(|&column| column == shown.column));
    let width = width.saturating_sub(used(&shown));
    shown.push(Shown {
        column: Column::Cause,
        width,
    });
    shown
}

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let shown = columns(pen.width(), model.widest);
    headings(model, &mut pen, &shown);
    let lines = pen.lines().saturating_sub(1);
    if model.list.is_empty() {
        nothing(model, &mut pen, &shown);
        return;
    }
    for (y, place) in (1..).zip(model.flows.top..).take(lines) {
        let Some(number) = model.list.at(place) else {
            break;
        };
        if let Some(row) = model.store.row(number) {
            line(model, &mut pen, y, &shown, row);
        } else {
            pen.put(1, y, "(no longer kept)", model.theme.dim());
        }
        if place == model.flows.place {
            pen.put(0, y, model.theme.symbols().cursor, model.theme.key());
            pen.paint(y, model.theme.selected());
        }
    }
    status(model, &mut pen, &shown);
}

fn headings(model: &Model, pen: &mut Pen<'_>, shown: &[Shown]) {
    let (theme, symbols) = (model.theme, model.theme.symbols());
    let mut x = 1;
    for Shown { column, width } in shown {
        let is_sorted = *column == model.list.column;
        let arrow = match (is_sorted, model.list.is_descending) {
            (false, _) => "",
            (true, true) => symbols.down,
            (true, false) => symbols.up,
        };
        let style = if is_sorted { theme.heading() } else { theme.dim() };
        let title = format!("{}{arrow}", column.title());
        if *column == Column::Cause && *width < 40 && !is_sorted {
            // The status takes the place of this heading.
        } else if is_number(*column) {
            pen.right(x, 0, &title, *width, style);
        } else {
            pen.put(x, 0, &title, style);
        }
        x += width + 1;
    }
}

/// Selection, filter and position, at the right end of the headings.
fn status(model: &Model, pen: &mut Pen<'_>, shown: &[Shown]) {
    let theme = model.theme;
    let mut parts = Vec::new();
    if !model.selection.is_empty() {
        parts.push(format!("only {}", clean(&model.selection)));
    }
    if !model.filter.is_empty() && model.typing.is_none() {
        parts.push(format!("/{}", clean(&model.filter)));
    }
    if model.only_failures {
        parts.push("failures".to_owned());
    }
    match model.list.unscanned() {
        0 => parts.push(format!(
            "{} of {}",
            count((model.flows.place + 1).min(model.list.len()) as u64),
            count(model.list.len() as u64)
        )),
        left => parts.push(format!("{} to scan", count(left))),
    }
    if model.follows {
        parts.push("following".to_owned());
    }
    let text = format!("  {}", parts.join(", "));
    let cause = shown.last().map_or(0, |cause| cause.width);
    let room = (cause + 1).max(pen.width() / 3);
    let text = fit_end(&text, usize::from(room), theme.symbols().more);
    pen.right(pen.width() - room, 0, &text, room, theme.key());
}

fn nothing(model: &Model, pen: &mut Pen<'_>, shown: &[Shown]) {
    let text = if model.list.unscanned() > 0 {
        "scanning".to_owned()
    } else if !model.list.filter().is_empty() {
        let all = quantity(model.totals.all.flows(), "flow matches", "flows match");
        let unknown = filter::unknown(&model.filter).map(|unknown| format!(" ({})", clean(&unknown)));
        format!(
            "0 of {all}{}. Esc: clear the filter.",
            unknown.unwrap_or_default()
        )
    } else if model.selection.is_empty() {
        "No connections so far.".to_owned()
    } else {
        "No connection matches the command-line filter so far.".to_owned()
    };
    pen.put(1, 2, &text, Style::new());
    status(model, pen, shown);
}

fn is_number(column: Column) -> bool {
    matches!(column, Column::Syns | Column::Connect | Column::Lost)
}

fn line(model: &Model, pen: &mut Pen<'_>, y: u16, shown: &[Shown], row: &Row) {
    let (theme, more) = (model.theme, model.theme.symbols().more);
    let mut x = 1;
    for Shown { column, width } in shown {
        let style = match column {
            Column::Fate => theme.outcome(row.outcome()),
            Column::Time => theme.dim(),
            _ => Style::new(),
        };
        let text = cell(model, row, *column);
        match column {
            Column::Client | Column::Backend | Column::Service => {
                pen.address(x, y, &text, *width, more, style);
            }
            column if is_number(*column) => pen.right(x, y, &text, *width, style),
            _ => pen.field(x, y, &text, *width, more, style),
        }
        x += width + 1;
    }
}

/// The text of a cell.
#[must_use]
pub fn cell(model: &Model, row: &Row, column: Column) -> String {
    match column {
        Column::Time => model
            .wall(row.start_ns)
            .map_or_else(String::new, |time| time.strftime("%H:%M:%S").to_string()),
        Column::Fate => format!("{} {}", model.theme.outcome_symbol(row.outcome()), row.fate),
        Column::Client => row.client().to_string(),
        Column::Service => model.names.text(row.service).to_owned(),
        Column::Backend => model.names.text(row.backend).to_owned(),
        Column::Syns => row.syns.to_string(),
        Column::Connect if row.connect_us == u32::MAX => String::new(),
        Column::Connect => milliseconds(row.connect_us.into()),
        Column::Lost if row.lost_us == 0 => String::new(),
        Column::Lost => milliseconds(row.lost_us.into()),
        Column::Cause if row.fate == Fate::Pending => {
            let age_ns = model.shown_ns().saturating_sub(row.start_ns);
            format!("pending for {} s", age_ns / 1_000_000_000)
        }
        Column::Cause => row.cause.map_or_else(String::new, |cause| {
            let summary = catalogue::row(cause).map_or("", |row| row.summary);
            format!("{cause}: {summary}")
        }),
    }
}
