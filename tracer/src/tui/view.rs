//! How the model looks. Nothing here changes it, and only what is on the screen is built.

pub mod detail;
mod drops;
pub mod flows;
mod front;
pub mod help;
mod hooks;
mod overview;
mod pen;

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::model::{At, Model};
use pen::Pen;

/// The smallest screen.
pub const SMALLEST: (u16, u16) = (60, 15);

/// Draws everything.
pub fn view(model: &Model, area: Rect, buffer: &mut Buffer) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        too_small(area, buffer);
        return;
    }
    let head = model.head_lines();
    front::head(model, Pen::new(buffer, Rect { height: head, ..area }));
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
    front::foot(model, Pen::new(buffer, foot));
}

/// Draws the view alone.
pub fn body(model: &Model, area: Rect, buffer: &mut Buffer) {
    draw(model, Pen::new(buffer, area));
}

fn draw(model: &Model, pen: Pen<'_>) {
    match model.at {
        At::Overview => overview::draw(model, pen),
        At::Flows => flows::draw(model, pen),
        At::Flow => detail::draw(model, pen),
        At::Drops => drops::draw(model, pen),
        At::Hooks => hooks::draw(model, pen),
    }
}

fn too_small(area: Rect, buffer: &mut Buffer) {
    let mut pen = Pen::new(buffer, area);
    let said = format!(
        "{}x{} is too small: tracer needs {}x{} (q ends)",
        area.width, area.height, SMALLEST.0, SMALLEST.1
    );
    for (y, line) in (0..).zip(super::text::wrap(&said, usize::from(area.width))) {
        pen.put(0, y, &line, Style::new());
    }
}
