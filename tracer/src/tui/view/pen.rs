//! Writes to a part of the screen and nowhere else. All text is made safe for the terminal.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use crate::tui::text::{clean, fit, fit_end, width};

/// A part of the screen. Positions count from its upper left corner.
pub(crate) struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
}

impl<'a> Pen<'a> {
    pub(crate) fn new(buffer: &'a mut Buffer, area: Rect) -> Self {
        let area = area.intersection(buffer.area);
        Self { buffer, area }
    }

    pub(crate) fn width(&self) -> u16 {
        self.area.width
    }

    pub(crate) fn columns(&self) -> usize {
        usize::from(self.area.width)
    }

    pub(crate) fn height(&self) -> u16 {
        self.area.height
    }

    pub(crate) fn lines(&self) -> usize {
        usize::from(self.area.height)
    }

    /// Writes what fits; returns the column after it.
    pub(crate) fn put(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        if x >= self.area.width || y >= self.area.height {
            return x;
        }
        let room = usize::from(self.area.width - x);
        let text = clean(text);
        let (end, _) = self
            .buffer
            .set_stringn(self.area.x + x, self.area.y + y, &text, room, style);
        end - self.area.x
    }

    /// Writes into a field of `columns`; cut text ends with `more`.
    pub(crate) fn field(&mut self, x: u16, y: u16, text: &str, columns: u16, more: &str, style: Style) {
        let text = fit(&clean(text), usize::from(columns), more);
        self.put(x, y, &text, style);
    }

    /// Writes an address into a field; if it is cut, its end is kept.
    pub(crate) fn address(&mut self, x: u16, y: u16, text: &str, columns: u16, more: &str, style: Style) {
        let text = fit_end(&clean(text), usize::from(columns), more);
        self.put(x, y, &text, style);
    }

    /// Writes right-aligned into a field.
    pub(crate) fn right(&mut self, x: u16, y: u16, text: &str, columns: u16, style: Style) {
        let text = fit(text, usize::from(columns), "");
        let left = usize::from(columns).saturating_sub(width(&text));
        self.put(x + u16::try_from(left).unwrap_or_default(), y, &text, style);
    }

    /// Sets the style of a whole line.
    pub(crate) fn paint(&mut self, y: u16, style: Style) {
        if y < self.area.height {
            let line = Rect {
                y: self.area.y + y,
                height: 1,
                ..self.area
            };
            self.buffer.set_style(line, style);
        }
    }
}
