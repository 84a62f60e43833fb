//! Where tracer looks in the kernel, and where it cannot.

use ratatui::style::Style;
use tracer_common::hook::{self, HookInfo};

use super::pen::Pen;
use crate::tui::{model::Model, text::count};

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let (theme, more) = (model.theme, model.theme.signs().more);
    pen.put(1, 0, "state", theme.dim());
    pen.put(11, 0, "function or tracepoint", theme.dim());
    pen.number(36, 0, "seen", 8, theme.dim());
    pen.number(45, 0, "lost", 6, theme.dim());
    pen.put(53, 0, "serves, or why it is not attached", theme.dim());
    let hooks = model.sorted_hooks();
    let lines = pen.lines().saturating_sub(1);
    for (y, (place, hook)) in (1..).zip(hooks.iter().enumerate().skip(model.hook.top).take(lines)) {
        let info = hook::ALL.iter().find(|info| info.name == hook.name);
        let style = match hook.state.as_str() {
            "disabled" => theme.warning(),
            "attached" => Style::new(),
            _ => theme.dim(),
        };
        pen.field(1, y, &hook.state, 9, more, style);
        pen.field(11, y, &hook.name, 25, more, style);
        let seen = info
            .and_then(|info| model.seen.get(&info.hook))
            .copied()
            .unwrap_or(0);
        if seen > 0 {
            pen.number(36, y, &count(seen), 8, Style::new());
        }
        if let Some(lost) = model.lost.get(&hook.name) {
            pen.number(45, y, &count(*lost), 6, theme.warning());
        }
        let said = hook.why.as_deref().unwrap_or_else(|| info.map_or("", serves));
        pen.field(53, y, said, pen.width().saturating_sub(53), more, style);
        if place == model.hook.place {
            pen.put(0, y, theme.signs().cursor, theme.key());
            pen.paint(y, theme.selected());
        }
    }
}

fn serves(info: &HookInfo) -> &'static str {
    info.serves
}
