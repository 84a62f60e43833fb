//! The Overview tab: outcomes over time, causes and services, worst first.

use ratatui::style::Style;

use super::pen::Pen;
use crate::{
    diagnose::catalogue,
    flow::fate::Fate,
    report::time::TimeUnit,
    tui::{
        model::{Item, Model},
        text::{clean, count, quantity, wrap},
        theme::Outcome,
        totals::{Sum, WORST_FIRST},
    },
};

/// Columns to the left of the bars.
const LABEL: u16 = 21;

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let y = outcomes(model, &mut pen);
    if model.shown().all.flows() == 0 {
        waiting(model, &mut pen, y + 1);
        return;
    }
    let items = model.items();
    let causes = items.iter().filter(|item| matches!(item, Item::Cause(_))).count();
    let left = pen.lines().saturating_sub(usize::from(y) + 4);
    // Services get at least a third, if there are enough of them.
    let services = items.len() - causes;
    let for_services = services.min(left.div_ceil(3).max(left.saturating_sub(causes.max(1))));
    let for_causes = causes.max(1).min(left.saturating_sub(for_services));
    let y = list_causes(model, &mut pen, y + 1, for_causes, causes);
    let y = list_services(model, &mut pen, y + 1, for_services, causes, services);
    advice(model, &mut pen, y + 1);
}

/// Summary and advice of the selected cause, if there is room.
fn advice(model: &Model, pen: &mut Pen<'_>, mut y: u16) {
    let Some(Item::Cause(cause)) = model.items().get(model.overview.place).copied() else {
        return;
    };
    let Some(row) = catalogue::row(cause) else {
        return;
    };
    let titled = [(cause.name(), Some(row.summary)), ("What to do", row.advice)];
    for (title, text) in titled {
        let Some(text) = text else { continue };
        for line in wrap(&format!("{title}: {text}"), pen.columns()) {
            pen.put(0, y, &line, model.theme.dim());
            y += 1;
        }
    }
}

/// Draws outcomes over the last minutes; returns the next line.
fn outcomes(model: &Model, pen: &mut Pen<'_>) -> u16 {
    let theme = model.theme;
    let spans = pen.columns().saturating_sub(usize::from(LABEL) + 1);
    let totals = model.shown();
    let seconds = scale(totals.age(model.shown_ns()), spans as u64);
    let title = format!("Outcomes so far (1 column = {seconds} s, newest right)");
    pen.put(0, 0, &title, theme.heading());
    let mut y = 1;
    // A small screen has no room for outcomes that did not happen.
    let is_low = pen.lines() < 16;
    let shown = WORST_FIRST
        .into_iter()
        .filter(|&fate| fate != Fate::Pending || totals.all.of(fate) > 0)
        .filter(|&fate| !is_low || totals.all.of(fate) > 0 || totals.all.flows() == 0);
    for fate in shown {
        let style = if totals.all.of(fate) > 0 {
            theme.fate(fate)
        } else {
            theme.dim()
        };
        pen.put(0, y, &format!("{} {fate}", theme.fate_symbol(fate)), style);
        pen.right(13, y, &count(totals.all.of(fate)), 7, style);
        let spans = totals.spans(fate, model.shown_ns(), spans, seconds);
        let most = spans.iter().copied().max().unwrap_or(0).max(1);
        let bars = theme.symbols().bars;
        for (x, flows) in (LABEL..).zip(spans) {
            // Rounded up, so that a single flow is visible.
            let height = usize::try_from((flows * 8).div_ceil(most)).unwrap_or(8).min(8);
            if height > 0 {
                pen.put(x, y, bars[height], style);
            }
        }
        y += 1;
    }
    y
}

/// Seconds per column: as few as fit everything, at most 4, so that the latest minutes stay distinct.
fn scale(age: u64, columns: u64) -> u64 {
    const SCALES: [u64; 3] = [1, 2, 4];
    let fits = |seconds: &u64| columns * seconds >= age;
    SCALES.into_iter().find(fits).unwrap_or(4)
}

fn waiting(model: &Model, pen: &mut Pen<'_>, y: u16) {
    let ports = quantity(model.ports as u64, "port", "ports");
    let text = if !model.selection.is_empty() {
        format!(
            "No connection matches the filter so far: {}",
            clean(&model.selection)
        )
    } else if model.playing.is_some() {
        "No connections up to this position in the recording.".to_owned()
    } else if model.has_ended {
        "No connections were seen.".to_owned()
    } else {
        format!(
            "No NodePort connections so far (tracing {ports}). A connection appears as soon as its fate is known: at \
             once if it is established, after a few seconds if it gets no answer."
        )
    };
    for (y, line) in (y..).zip(wrap(&text, pen.columns())) {
        pen.put(0, y, &line, Style::new());
    }
}

fn list_causes(model: &Model, pen: &mut Pen<'_>, y: u16, lines: usize, causes: usize) -> u16 {
    let (theme, more) = (model.theme, model.theme.symbols().more);
    pen.put(0, y, "Top causes", theme.heading());
    pen.right(27, y, "flows", 7, theme.dim());
    pen.right(35, y, "time lost", 9, theme.dim());
    pen.put(46, y, "summary", theme.dim());
    if causes == 0 {
        let pending = model.shown().all.of(Fate::Pending);
        let (text, fate) = match pending {
            0 => ("No failures.".to_owned(), Fate::Established),
            _ => (
                format!("No failures so far, {} pending.", count(pending)),
                Fate::Pending,
            ),
        };
        let text = match model.selection.as_str() {
            "" => text,
            selection => format!("{text} Filter: {}", clean(selection)),
        };
        let mut y = y + 1;
        for line in wrap(&text, pen.columns()) {
            pen.put(0, y, &line, theme.fate(fate));
            y += 1;
        }
        return y;
    }
    let first = first_shown(model.overview.place, lines, causes);
    let all = model.shown().causes();
    let unit = unit_of(all.iter().map(|&(_, sum)| sum));
    for (y, (place, (cause, sum))) in (y + 1..).zip(all.iter().enumerate().skip(first).take(lines)) {
        let style = theme.outcome(worst(sum));
        pen.put(0, y, &format!("  {}", theme.outcome_symbol(worst(sum))), style);
        pen.field(4, y, cause.name(), 24, more, style);
        numbers(pen, y, sum, unit);
        let summary = catalogue::row(*cause).map_or("", |row| row.summary);
        pen.field(46, y, summary, pen.width().saturating_sub(46), more, Style::new());
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
    let (theme, more) = (model.theme, model.theme.symbols().more);
    pen.put(0, y, "Services", theme.heading());
    pen.right(27, y, "flows", 7, theme.dim());
    pen.right(35, y, "time lost", 9, theme.dim());
    pen.put(46, y, "healthy", theme.dim());
    let first = first_shown(model.overview.place.saturating_sub(causes), lines, services);
    let all = model.shown().services();
    let unit = unit_of(all.iter().map(|&(_, sum)| sum));
    for (y, (place, (name, sum))) in (y + 1..).zip(all.iter().enumerate().skip(first).take(lines)) {
        pen.field(2, y, &clean(model.names.text(*name)), 25, more, Style::new());
        numbers(pen, y, sum, unit);
        let style = theme.outcome(worst(sum));
        let share = share(sum);
        let x = pen.put(46, y, &format!("{share:>6}"), style);
        let failures = failures(sum);
        pen.field(
            x + 2,
            y,
            &failures,
            pen.width().saturating_sub(x + 2),
            more,
            style,
        );
        mark(model, pen, y, causes + place);
    }
    y + 1 + u16::try_from(lines.min(services)).unwrap_or_default()
}

/// The unit of the times lost in a table.
fn unit_of<'a>(sums: impl Iterator<Item = &'a Sum>) -> TimeUnit {
    TimeUnit::of(sums.map(lost_ms))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn lost_ms(sum: &Sum) -> f64 {
    sum.lost_us as f64 / 1_000.0
}

fn numbers(pen: &mut Pen<'_>, y: u16, sum: &Sum, unit: TimeUnit) {
    pen.right(27, y, &count(sum.flows()), 7, Style::new());
    if sum.lost_us > 0 {
        pen.right(35, y, &unit.format(lost_ms(sum)), 9, Style::new());
    }
}

fn mark(model: &Model, pen: &mut Pen<'_>, y: u16, place: usize) {
    if model.overview.place == place {
        pen.put(0, y, model.theme.symbols().cursor, model.theme.key());
        pen.paint(y, model.theme.selected());
    }
}

/// The first place shown of a list with room for `lines`, so that `place` is visible.
fn first_shown(place: usize, lines: usize, length: usize) -> usize {
    (place + 1)
        .saturating_sub(lines.max(1))
        .min(length.saturating_sub(lines))
}

/// The worst outcome of these flows.
fn worst(sum: &Sum) -> Outcome {
    let worst = WORST_FIRST.into_iter().find(|&fate| sum.of(fate) > 0);
    match worst {
        Some(fate) if fate.is_bad() => (fate, true),
        _ if sum.misdirected() > 0 => (Fate::Established, true),
        fate => (fate.unwrap_or(Fate::Established), false),
    }
}

/// The failures of these flows: `2 dropped, 1 stalled`.
fn failures(sum: &Sum) -> String {
    let by_fate = WORST_FIRST
        .into_iter()
        .filter(|&fate| fate.is_bad() && sum.of(fate) > 0)
        .map(|fate| format!("{} {fate}", count(sum.of(fate))));
    let misdirected = Some(sum.misdirected()).filter(|&flows| flows > 0);
    let misdirected = misdirected.map(|flows| format!("{} misdirected", count(flows)));
    by_fate.chain(misdirected).collect::<Vec<_>>().join(", ")
}

/// The share of decided flows that are no failures, never rounded up to all.
fn share(sum: &Sum) -> String {
    let decided = sum.flows() - sum.of(Fate::Pending);
    if decided == 0 {
        return String::new();
    }
    let per_mille = decided.saturating_sub(sum.failures) * 1000 / decided;
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}
