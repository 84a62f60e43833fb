//! The Drops tab: kernel function, drop reason, rule.

use ratatui::style::Style;

use super::pen::Pen;
use crate::tui::{model::Model, text::count, totals::Drops};

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let (theme, more) = (model.theme, model.theme.symbols().more);
    let drops = model.shown().drops();
    // Widths of the function and the reason.
    let (function, reason) = match pen.width() {
        0..76 => (18, 0),
        76..100 => (24, 18),
        _ => (34, 24),
    };
    let rest = 9 + function + 1 + reason + u16::from(reason > 0);
    pen.right(1, 0, "flows", 7, theme.dim());
    pen.put(9, 0, "dropped in", theme.dim());
    pen.field(10 + function, 0, "drop reason", reason, "", theme.dim());
    pen.put(rest, 0, "rule, causes", theme.dim());
    if drops.is_empty() {
        pen.put(1, 2, "No drops in failed or delayed flows.", Style::new());
        return;
    }
    let lines = pen.lines().saturating_sub(1);
    for (y, (place, (name, drops))) in (1..).zip(drops.iter().enumerate().skip(model.drops.top).take(lines)) {
        let mut parts = model.names.text(*name).split('\t');
        let [dropped_in, reason_name, rule] = [(); 3].map(|()| parts.next().unwrap_or_default());
        pen.right(1, y, &count(drops.sum.flows()), 7, Style::new());
        pen.field(9, y, or(dropped_in, "(unknown)"), function, more, theme.warning());
        pen.field(
            10 + function,
            y,
            or(reason_name, "none given"),
            reason,
            more,
            Style::new(),
        );
        let causes = causes(drops);
        let text = if rule.is_empty() {
            causes
        } else {
            format!("{rule}  {causes}")
        };
        pen.field(
            rest,
            y,
            &text,
            pen.width().saturating_sub(rest),
            more,
            Style::new(),
        );
        if place == model.drops.place {
            pen.put(0, y, model.theme.symbols().cursor, theme.key());
            pen.paint(y, theme.selected());
        }
    }
}

/// The only cause; or each one with its number of flows.
fn causes(drops: &Drops) -> String {
    match drops.causes().as_slice() {
        [(cause, _)] => cause.name().to_owned(),
        several => {
            let counted: Vec<String> = several
                .iter()
                .map(|(cause, flows)| format!("{} {cause}", count(*flows)))
                .collect();
            counted.join(", ")
        }
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}
