//! Draws the model, without changing it. Only what is on the screen is built.

pub mod detail;
mod drops;
pub mod flows;
mod footer;
mod header;
pub mod help;
mod hooks;
mod overview;
mod pen;

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::model::{Model, Tab};
use pen::Pen;

/// The smallest screen: columns, lines.
pub const SMALLEST: (u16, u16) = (60, 15);

/// Draws everything.
pub fn view(model: &Model, area: Rect, buffer: &mut Buffer) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(area, buffer);
        return;
    }
    let head = model.head_lines();
    header::draw(model, Pen::new(buffer, Rect { height: head, ..area }));
    let body = Rect {
        y: area.y + head,
        height: area.height - head - 1,
        ..area
    };
    match model.help {
        Some(top) => help::draw(model, top, Pen::new(buffer, body)),
        None => draw(model, Pen::new(buffer, body)),
    }
    let foot = Rect {
        y: area.bottom() - 1,
        height: 1,
        ..area
    };
    footer::draw(model, Pen::new(buffer, foot));
}

/// Draws the open tab alone.
pub fn body(model: &Model, area: Rect, buffer: &mut Buffer) {
    draw(model, Pen::new(buffer, area));
}

fn draw(model: &Model, pen: Pen<'_>) {
    match model.tab {
        Tab::Overview => overview::draw(model, pen),
        Tab::Flows => flows::draw(model, pen),
        Tab::Flow => detail::draw(model, pen),
        Tab::Drops => drops::draw(model, pen),
        Tab::Hooks => hooks::draw(model, pen),
    }
}

fn too_small(area: Rect, buffer: &mut Buffer) {
    let mut pen = Pen::new(buffer, area);
    let message = format!(
        "{}x{} is too small: tracer needs {}x{} (q: quit)",
        area.width, area.height, SMALLEST.0, SMALLEST.1
    );
    for (y, line) in (0..).zip(super::text::wrap(&message, usize::from(area.width))) {
        pen.put(0, y, &line, Style::new());
    }
}
