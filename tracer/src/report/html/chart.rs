//! Fates over time.

use maud::{Markup, html};

use super::{ORDER, fate, sign};
use crate::{
    flow::fate::Fate,
    report::summary::{Bin, OverTime, Summary, text},
};

/// Height of a chart.
const HEIGHT: u64 = 180;
/// The space between two bars, as a part of what a bar has.
const GAP: f64 = 0.15;

/// The chart of all flows and, where those that did not go well are too few to be seen in it, one of them alone; the
/// same as a table.
pub(super) fn section(summary: &Summary) -> Markup {
    let over_time = &summary.over_time;
    let all = over_time.bins.iter().map(Bin::flows).max().unwrap_or(0);
    let bad = over_time.bins.iter().map(Bin::not_well).max().unwrap_or(0);
    html! {
        section id="time" {
            h2 { "Over time" }
            @if over_time.bins.is_empty() {
                p { "There were no flows." }
            } @else {
                (patterns())
                (figure(over_time, "Flows by the time of their first SYN", "all", &ORDER))
                @if bad > 0 && bad.saturating_mul(4) < all {
                    @let of: Vec<Fate> = ORDER.into_iter().filter(|fate| fate.is_bad()).collect();
                    (figure(over_time, "Those of them that did not go well", "bad", &of))
                }
                (legend(summary))
                (table(over_time, summary))
            }
        }
    }
}

/// What each fate is filled with. Every chart uses these.
fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                @for fate in ORDER {
                    pattern id={ "fill-" (fate.name()) } class=(fate.name()) width="8" height="8" patternUnits="userSpaceOnUse" {
                        rect.ground width="8" height="8" {}
                        @if let Some(lines) = lines(fate) {
                            path.lines d=(lines) {}
                        }
                    }
                }
            }
        }
    }
}

/// Colour is not the only sign: what is drawn upon it, in a square of 8.
fn lines(fate: Fate) -> Option<&'static str> {
    Some(match fate {
        Fate::Established => return None,
        Fate::Stalled => "M-2 2L2 -2M0 8L8 0M6 10L10 6",
        Fate::Dropped => "M0 0L8 8M8 0L0 8",
        Fate::Refused => "M2 0V8M6 0V8",
        Fate::Unanswered => "M0 2H8M0 6H8",
        Fate::Pending => "M3 4H5",
    })
}

fn figure(over_time: &OverTime, title: &str, name: &str, order: &[Fate]) -> Markup {
    let height = |bin: &Bin| -> u64 { order.iter().filter_map(|fate| bin.by_fate.get(fate)).sum() };
    let top = round_up(over_time.bins.iter().map(height).max().unwrap_or(0));
    let bins = over_time.bins.len();
    let (title_id, desc_id) = (format!("chart-{name}-title"), format!("chart-{name}-desc"));
    html! {
        figure.chart style={ "--bars:" (bins) } {
            figcaption { (title) ", in spans of " (span(over_time.step_s)) }
            div.axis.y aria-hidden="true" {
                span { (top) }
                @if top.is_multiple_of(2) { span { (top / 2) } }
                span { "0" }
            }
            svg.plot width="100%" height=(HEIGHT) role="img" aria-labelledby={ (title_id) " " (desc_id) } {
                title id=(title_id) { (title) }
                desc id=(desc_id) { (describe(over_time, order)) }
                @for line in ["0", "50%", "100%"] {
                    line.grid x1="0" x2="100%" y1=(line) y2=(line) {}
                }
                @for (index, bin) in over_time.bins.iter().enumerate() {
                    (bar(bin, (index, bins), top, order))
                }
            }
            div.axis.x aria-hidden="true" {
                @for bin in ticks(&over_time.bins) {
                    span { (label(&bin.start, over_time.step_s)) }
                }
            }
        }
    }
}

/// One bar: its parts from the ground up. The whole of its column tells its numbers to the mouse.
fn bar(bin: &Bin, (index, bins): (usize, usize), top: u64, order: &[Fate]) -> Markup {
    let column = 100.0 / number(bins);
    let left = column * number(index);
    let mut under = 0;
    let parts: Vec<(Fate, u64, u64)> = order
        .iter()
        .filter_map(|&fate| {
            let count = *bin.by_fate.get(&fate)?;
            under += count;
            Some((fate, count, under))
        })
        .collect();
    if parts.is_empty() {
        return html! {};
    }
    html! {
        g {
            title { (text::moment(&bin.start)) ": " (text::fates(&bin.by_fate)) }
            rect.column x={ (percent(left)) } width=(percent(column)) y="0" height="100%" {}
            @for (fate, count, upper) in parts {
                rect class=(fate.name())
                    x=(percent(left + column * GAP / 2.0)) width=(percent(column * (1.0 - GAP)))
                    y=(percent(100.0 - share(upper, top))) height=(percent(share(count, top))) {}
            }
        }
    }
}

fn legend(summary: &Summary) -> Markup {
    html! {
        ul.legend {
            @for of in ORDER {
                @if summary.by_fate.contains_key(&of) {
                    li {
                        svg width="16" height="16" aria-hidden="true" focusable="false" {
                            rect class=(of.name()) width="16" height="16" {}
                        }
                        (fate(of))
                    }
                }
            }
        }
    }
}

fn table(over_time: &OverTime, summary: &Summary) -> Markup {
    let fates: Vec<Fate> = ORDER
        .into_iter()
        .filter(|fate| summary.by_fate.contains_key(fate))
        .collect();
    html! {
        details.numbers {
            summary { "The same in numbers" }
            table.cards {
                caption { "Flows by the time of their first SYN" }
                thead {
                    tr {
                        th scope="col" { "From" }
                        @for fate in &fates {
                            th.number scope="col" { (sign(*fate)) " " (fate.name()) }
                        }
                    }
                }
                tbody {
                    @for bin in &over_time.bins {
                        @if bin.flows() != 0 {
                            tr {
                                th scope="row" { (text::moment(&bin.start)) }
                                @for fate in &fates {
                                    td.number data-label=(fate.name()) { (bin.by_fate.get(fate).copied().unwrap_or(0)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn describe(over_time: &OverTime, order: &[Fate]) -> String {
    let began = over_time.bins.iter().find(|bin| bin.not_well() != 0);
    let worst = over_time.bins.iter().rev().max_by_key(|bin| bin.not_well());
    match (began, worst) {
        (Some(began), Some(worst)) => format!(
            "A stacked bar for each span of time. The first flow that did not go well began after {}; the worst span began \
             at {}, with {} of them.",
            text::moment(&began.start),
            text::moment(&worst.start),
            worst.not_well()
        ),
        _ => format!(
            "A stacked bar for each span of time, with the fates {}.",
            order
                .iter()
                .map(|fate| fate.name())
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// The spans whose time is told below the chart: the first, the last, and some between.
fn ticks(bins: &[Bin]) -> Vec<&Bin> {
    let last = bins.len().saturating_sub(1);
    let parts = last.min(4);
    let mut at: Vec<usize> = (0..=parts).map(|part| last * part / parts.max(1)).collect();
    at.dedup();
    at.into_iter().filter_map(|index| bins.get(index)).collect()
}

/// The time of a span, as exactly as it must be told.
fn label(rfc3339: &str, step_s: i64) -> String {
    match step_s {
        86_400.. => rfc3339.get(..10).unwrap_or(rfc3339).to_owned(),
        3_600.. => rfc3339.get(5..16).unwrap_or(rfc3339).replace('T', " "),
        60.. => rfc3339.get(11..16).unwrap_or(rfc3339).to_owned(),
        _ => text::clock(rfc3339).to_owned(),
    }
}

fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        86_400.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    text::plural(usize::try_from(count).unwrap_or(0), unit)
}

/// The next number that people count in: 1, 2, 4, 5, 6, 8 or 10, 20, 40 and so on.
fn round_up(most: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        let found = [1, 2, 4, 5, 6, 8, 10]
            .into_iter()
            .map(|times| unit.saturating_mul(times))
            .find(|&round| round >= most);
        match found {
            Some(round) => return round,
            None => unit = unit.saturating_mul(10),
        }
    }
}

fn percent(part: f64) -> String {
    format!("{part:.3}%")
}

fn share(count: u64, top: u64) -> f64 {
    100.0 * float(count) / float(top.max(1))
}

fn number(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

#[allow(clippy::cast_precision_loss, reason = "a place on a screen")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (most, round) in [
            (0, 1),
            (1, 1),
            (3, 4),
            (7, 8),
            (11, 20),
            (99, 100),
            (41_000, 50_000),
        ] {
            assert_eq!(round_up(most), round);
        }
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }
}
