//! What is going wrong, at a glance: fates over time, causes, services; the worst first.

use ratatui::style::Style;

use super::{front::fates_shown, pen::Pen};
use crate::{
    diagnose::catalogue,
    flow::fate::Fate,
    tui::{
        model::{Item, Model},
        text::{clean, count, duration, wrap},
        totals::Sum,
    },
};

/// Columns before the bars.
const LABEL: u16 = 21;

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let y = fates(model, &mut pen);
    if model.shown().all.flows() == 0 {
        waiting(model, &mut pen, y + 1);
        return;
    }
    let items = model.items();
    let causes = items.iter().filter(|item| matches!(item, Item::Cause(_))).count();
    let left = pen.lines().saturating_sub(usize::from(y) + 4);
    // Services get a third at least, if there are so many.
    let services = items.len() - causes;
    let for_services = services.min((left / 3).max(left.saturating_sub(causes.max(1))));
    let for_causes = causes.max(1).min(left.saturating_sub(for_services));
    let y = list_causes(model, &mut pen, y + 1, for_causes, causes);
    let y = list_services(model, &mut pen, y + 1, for_services, causes, services);
    advise(model, &mut pen, y + 1);
}

/// What the selected cause means and what to do about it, where there is room.
fn advise(model: &Model, pen: &mut Pen<'_>, mut y: u16) {
    let Some(Item::Cause(cause)) = model.items().get(model.overview.place).copied() else {
        return;
    };
    let Some(row) = catalogue::row(cause) else {
        return;
    };
    let titled = [(cause.name(), Some(row.summary)), ("Do", row.advice)];
    for (title, text) in titled {
        let Some(text) = text else { continue };
        for line in wrap(&format!("{title}: {text}"), pen.columns()) {
            pen.put(0, y, &line, model.theme.dim());
            y += 1;
        }
    }
}

/// Fates over the last minutes, and the place below.
fn fates(model: &Model, pen: &mut Pen<'_>) -> u16 {
    let theme = model.theme;
    let spans = pen.columns().saturating_sub(usize::from(LABEL) + 1);
    let totals = model.shown();
    let seconds = scale(totals.age(model.shown_ns()), spans as u64);
    let each = match seconds {
        1 => "a second".to_owned(),
        seconds => format!("{seconds} seconds"),
    };
    let title = format!("Fates: all so far, and when: {each} a column, the last is now");
    pen.put(0, 0, &title, theme.heading());
    let mut y = 1;
    // On a small screen there are better things to show than what has not happened.
    let is_low = pen.lines() < 16;
    let shown = fates_shown(model)
        .into_iter()
        .filter(|&fate| !is_low || totals.all.of(fate) > 0 || totals.all.flows() == 0);
    for fate in shown {
        let style = if totals.all.of(fate) > 0 {
            theme.fate(fate)
        } else {
            theme.dim()
        };
        pen.put(0, y, &format!("{} {fate}", theme.fate_sign(fate)), style);
        pen.number(13, y, &count(totals.all.of(fate)), 7, style);
        let spans = totals.spans(fate, model.shown_ns(), spans, seconds);
        let most = spans.iter().copied().max().unwrap_or(0).max(1);
        let bars = theme.signs().bars;
        for (x, flows) in (LABEL..).zip(spans) {
            // Whatever happened at all is seen.
            let height = usize::try_from((flows * 8).div_ceil(most)).unwrap_or(8).min(8);
            if height > 0 {
                pen.put(x, y, bars[height], style);
            }
        }
        y += 1;
    }
    y
}

/// So many seconds stand in one column: few while everything has room, and never so many that now cannot be told from
/// a while ago.
fn scale(age: u64, columns: u64) -> u64 {
    const SCALES: [u64; 3] = [1, 2, 4];
    let fits = |seconds: &u64| columns * seconds >= age;
    SCALES.into_iter().find(fits).unwrap_or(4)
}

fn waiting(model: &Model, pen: &mut Pen<'_>, y: u16) {
    let ports = match model.ports {
        1 => "1 port".to_owned(),
        ports => format!("{} ports", count(ports as u64)),
    };
    let text = if !model.only.is_empty() {
        format!(
            "No connection was seen so far that is as the command line asks for: {}",
            clean(&model.only)
        )
    } else if model.playing.is_some() {
        "Up to this place in the recording no connection was seen.".to_owned()
    } else if model.has_ended {
        "No connection was seen.".to_owned()
    } else {
        format!(
            "No connection to a NodePort was seen so far. tracer follows {ports} and shows each client's SYN as soon as \
             its fate is known: at once if it connects, after some seconds without an answer."
        )
    };
    for (y, line) in (y..).zip(wrap(&text, pen.columns())) {
        pen.put(0, y, &line, Style::new());
    }
}

fn list_causes(model: &Model, pen: &mut Pen<'_>, y: u16, lines: usize, causes: usize) -> u16 {
    let (theme, more) = (model.theme, model.theme.signs().more);
    pen.put(0, y, "Causes, the worst first", theme.heading());
    pen.number(27, y, "flows", 7, theme.dim());
    pen.number(35, y, "time lost", 9, theme.dim());
    pen.put(46, y, "what happens", theme.dim());
    if causes == 0 {
        let pending = model.shown().all.of(Fate::Pending);
        let (said, fate) = match pending {
            0 => ("Nothing has gone wrong.".to_owned(), Fate::Established),
            _ => (
                format!(
                    "Nothing is known to have gone wrong; not decided yet: {}.",
                    count(pending)
                ),
                Fate::Pending,
            ),
        };
        let said = match model.only.as_str() {
            "" => said,
            only => format!("{said} Only these are shown: {}", clean(only)),
        };
        let mut y = y + 1;
        for line in wrap(&said, pen.columns()) {
            pen.put(0, y, &line, theme.fate(fate));
            y += 1;
        }
        return y;
    }
    let first = first_shown(model.overview.place, lines, causes);
    let all = model.shown().causes();
    for (y, (place, (cause, sum))) in (y + 1..).zip(all.iter().enumerate().skip(first).take(lines)) {
        let style = theme.fate(worst(sum));
        pen.put(0, y, &format!("  {}", theme.fate_sign(worst(sum))), style);
        pen.field(4, y, cause.name(), 24, more, style);
        numbers(pen, y, sum);
        let says = catalogue::row(*cause).map_or("", |row| row.summary);
        pen.field(46, y, says, pen.width().saturating_sub(46), more, Style::new());
        mark(model, pen, y, place);
    }
    y + 1 + u16::try_from(lines.min(causes)).unwrap_or_default()
}

fn list_services(
    model: &Model,
    pen: &mut Pen<'_>,
    y: u16,
    lines: usize,
    causes: usize,
    services: usize,
) -> u16 {
    let (theme, more) = (model.theme, model.theme.signs().more);
    pen.put(0, y, "Services", theme.heading());
    pen.number(27, y, "flows", 7, theme.dim());
    pen.number(35, y, "time lost", 9, theme.dim());
    pen.put(46, y, "connected at once", theme.dim());
    let first = first_shown(model.overview.place.saturating_sub(causes), lines, services);
    let all = model.shown().services();
    for (y, (place, (name, sum))) in (y + 1..).zip(all.iter().enumerate().skip(first).take(lines)) {
        pen.field(2, y, &clean(model.names.text(*name)), 25, more, Style::new());
        numbers(pen, y, sum);
        let style = theme.fate(worst(sum));
        let share = share(sum);
        let x = pen.put(46, y, &format!("{share:>6}"), style);
        let troubles: Vec<String> = super::super::totals::WORST_FIRST
            .into_iter()
            .filter(|&fate| super::super::row::is_trouble(fate) && sum.of(fate) > 0)
            .map(|fate| format!("{} {fate}", count(sum.of(fate))))
            .collect();
        pen.field(
            x + 2,
            y,
            &troubles.join(", "),
            pen.width().saturating_sub(x + 2),
            more,
            style,
        );
        mark(model, pen, y, causes + place);
    }
    y + 1 + u16::try_from(lines.min(services)).unwrap_or_default()
}

fn numbers(pen: &mut Pen<'_>, y: u16, sum: &Sum) {
    pen.number(27, y, &count(sum.flows()), 7, Style::new());
    if sum.lost_us > 0 {
        pen.number(35, y, &duration(sum.lost_us), 9, Style::new());
    }
}

fn mark(model: &Model, pen: &mut Pen<'_>, y: u16, place: usize) {
    if model.overview.place == place {
        pen.put(0, y, model.theme.signs().cursor, model.theme.key());
        pen.paint(y, model.theme.selected());
    }
}

/// The first of a list that has room for so many lines, if this place is to be seen.
fn first_shown(place: usize, lines: usize, length: usize) -> usize {
    (place + 1)
        .saturating_sub(lines.max(1))
        .min(length.saturating_sub(lines))
}

fn worst(sum: &Sum) -> Fate {
    super::super::totals::WORST_FIRST
        .into_iter()
        .find(|&fate| sum.of(fate) > 0)
        .unwrap_or(Fate::Established)
}

/// Connections at once of all that are decided, never rounded up to all.
fn share(sum: &Sum) -> String {
    let decided = sum.flows() - sum.of(Fate::Pending);
    if decided == 0 {
        return String::new();
    }
    let per_mille = sum.of(Fate::Established) * 1000 / decided;
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}
