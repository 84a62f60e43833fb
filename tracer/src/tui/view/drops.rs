//! Where packets are discarded: kernel function, drop reason, rule.

use ratatui::style::Style;

use super::pen::Pen;
use crate::tui::{model::Model, text::count, totals::Drops};

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let (theme, more) = (model.theme, model.theme.signs().more);
    let drops = model.shown().drops();
    // Function, reason and rule, and the causes.
    let (function, reason) = match pen.width() {
        0..76 => (18, 0),
        76..100 => (24, 18),
        _ => (34, 24),
    };
    let rest = 9 + function + 1 + reason + u16::from(reason > 0);
    pen.number(1, 0, "flows", 7, theme.dim());
    pen.put(9, 0, "discarded in", theme.dim());
    pen.field(10 + function, 0, "drop reason", reason, "", theme.dim());
    pen.put(rest, 0, "rule, causes", theme.dim());
    if drops.is_empty() {
        pen.put(
            1,
            2,
            "Of the flows that are decided, this node has discarded no packet.",
            Style::new(),
        );
        return;
    }
    let lines = pen.lines().saturating_sub(1);
    for (y, (place, (name, drops))) in (1..).zip(drops.iter().enumerate().skip(model.drops.top).take(lines)) {
        let mut parts = model.names.text(*name).split('\t');
        let [place_in, why, rule] = [(); 3].map(|()| parts.next().unwrap_or_default());
        pen.number(1, y, &count(drops.sum.flows()), 7, Style::new());
        pen.field(9, y, or(place_in, "(not seen)"), function, more, theme.warning());
        pen.field(
            10 + function,
            y,
            or(why, "none given"),
            reason,
            more,
            Style::new(),
        );
        let causes = causes(drops);
        let said = if rule.is_empty() {
            causes
        } else {
            format!("{rule}  {causes}")
        };
        pen.field(
            rest,
            y,
            &said,
            pen.width().saturating_sub(rest),
            more,
            Style::new(),
        );
        if place == model.drops.place {
            pen.put(0, y, model.theme.signs().cursor, theme.key());
            pen.paint(y, theme.selected());
        }
    }
}

/// The only cause; or each, with how many flows have it.
fn causes(drops: &Drops) -> String {
    match drops.causes().as_slice() {
        [(cause, _)] => cause.name().to_owned(),
        several => {
            let told: Vec<String> = several
                .iter()
                .map(|(cause, flows)| format!("{} {cause}", count(*flows)))
                .collect();
            told.join(", ")
        }
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}
