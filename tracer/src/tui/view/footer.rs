//! The last line: keys, the filter while it is edited, or a notice.

use ratatui::style::Style;

use super::pen::Pen;
use crate::tui::{
    filter,
    model::{Model, Tab},
    text::{clean, fit_end, width},
};

/// A key and what it does.
type Hint = (&'static str, &'static str);

/// Always shown, at the end.
const LAST: [Hint; 2] = [("?", "help"), ("q", "quit")];

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let theme = model.theme;
    if let Some(typing) = &model.typing {
        let x = pen.put(0, 0, "/", theme.key());
        let shown = fit_end(typing, pen.columns().saturating_sub(4), theme.symbols().more);
        let x = pen.put(x, 0, &shown, Style::new());
        let x = pen.put(x, 0, " ", theme.selected());
        if let Some(unknown) = filter::unknown(typing) {
            pen.put(x, 0, &format!("  {}", clean(&unknown)), theme.warning());
        } else {
            pen.put(
                x,
                0,
                "  Enter: apply  Esc: clear  any word, or port: client: service: fate: cause: drop: !not",
                theme.dim(),
            );
        }
    } else if let Some(notice) = &model.notice {
        pen.field(0, 0, notice, pen.width(), theme.symbols().more, theme.heading());
    } else {
        keys(model, &mut pen);
    }
}

fn keys(model: &Model, pen: &mut Pen<'_>) {
    let columns = |&(key, action): &Hint| width(key) + width(action) + 4;
    let room = pen.columns().saturating_sub(LAST.iter().map(columns).sum());
    let mut used = 0;
    let mut shown = hints(model);
    shown.retain(|hint| {
        let fits = used + columns(hint) <= room;
        used += if fits { columns(hint) } else { 0 };
        fits
    });
    shown.extend(LAST);
    let mut x = 0;
    for (key, action) in shown {
        x = pen.put(x, 0, key, model.theme.key());
        x = pen.put(x, 0, &format!(": {action}"), Style::new()) + 2;
    }
}

/// The keys of the open tab, the most useful first.
fn hints(model: &Model) -> Vec<Hint> {
    if model.help.is_some() {
        return vec![("j/k", "scroll"), ("Esc", "close")];
    }
    let has_earlier = model.flow_row().is_some_and(|row| row.earlier != 0);
    let mut hints: Vec<Hint> = match model.tab {
        Tab::Overview => vec![("Enter", "flows"), ("/", "filter"), ("t", "failures")],
        Tab::Flows => vec![
            ("Enter", "path"),
            ("Esc", "back"),
            ("/", "filter"),
            ("t", "failures"),
            ("s", "sort"),
            ("f", "follow"),
            ("n", "next failure"),
        ],
        Tab::Flow if has_earlier => vec![("Enter", "earlier flow")],
        Tab::Flow => Vec::new(),
        Tab::Drops => vec![("Enter", "flows"), ("Esc", "back"), ("e", "export")],
        Tab::Hooks => vec![("Esc", "back"), ("e", "export")],
    };
    if model.tab == Tab::Flow {
        hints.extend([("Esc", "back"), ("j/k", "scroll"), ("y", "copy"), ("e", "export")]);
    }
    if model.playing.is_some() {
        hints.extend([
            ("Space", "play/pause"),
            (",.", "seek"),
            ("x", "play to failure"),
            ("+-", "speed"),
        ]);
    } else {
        hints.push(("p", "freeze"));
    }
    hints
}
