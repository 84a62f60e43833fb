//! Fates over time.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::sign::{ORDER, fate, sign};
use crate::{
    diagnose::words,
    flow::fate::Fate,
    report::{
        summary::{Bin, OverTime, Summary, text},
        time::{clock, moment},
    },
};

/// Height of a chart.
const HEIGHT: u64 = 180;
/// The space between two bars, as a fraction of a column's width.
const GAP: f64 = 0.15;

/// The chart of all flows, a chart of failed and delayed flows if they would be too small to see in it, and the numbers
/// as a table.
pub(super) fn section(summary: &Summary) -> Markup {
    let over_time = &summary.over_time;
    let all = over_time.bins.iter().map(Bin::flows).max().unwrap_or(0);
    let failures = over_time.bins.iter().map(Bin::failures).max().unwrap_or(0);
    html! {
        section id="time" {
            h2 { "Over time" }
            @if over_time.bins.is_empty() {
                p { "No flows." }
            } @else {
                (patterns())
                (figure(over_time, &ALL))
                @if failures > 0 && failures.saturating_mul(4) < all {
                    (figure(over_time, &FAILURES))
                }
                (legend(summary))
                (table(over_time, summary))
            }
        }
    }
}

/// A chart of the same intervals.
struct Chart {
    title: &'static str,
    /// A part of the ids in the page.
    name: &'static str,
    /// The flows it counts.
    by_fate: fn(&Bin) -> &BTreeMap<Fate, u64>,
}

const ALL: Chart = Chart {
    title: "Flows by the time of their first SYN",
    name: "all",
    by_fate: |bin| &bin.by_fate,
};
const FAILURES: Chart = Chart {
    title: "Failed and delayed flows",
    name: "bad",
    by_fate: |bin| &bin.failures_by_fate,
};

/// The fill of each fate, for every chart.
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

/// The lines drawn over the colour, in a square of 8: colour is not the only mark.
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

fn figure(over_time: &OverTime, chart: &Chart) -> Markup {
    let title = chart.title;
    let height = |bin: &Bin| -> u64 { (chart.by_fate)(bin).values().sum() };
    let top = round_up(over_time.bins.iter().map(height).max().unwrap_or(0));
    let bins = over_time.bins.len();
    let (title_id, desc_id) = (
        format!("chart-{}-title", chart.name),
        format!("chart-{}-desc", chart.name),
    );
    html! {
        figure.chart style={ "--bars:" (bins) } {
            figcaption { (title) ", per " (interval(over_time.step_s)) }
            div.axis.y aria-hidden="true" {
                span { (top) }
                @if top.is_multiple_of(2) { span { (top / 2) } }
                span { "0" }
            }
            svg.plot width="100%" height=(HEIGHT) role="img" aria-labelledby={ (title_id) " " (desc_id) } {
                title id=(title_id) { (title) }
                desc id=(desc_id) { (describe(over_time, chart)) }
                @for line in ["0", "50%", "100%"] {
                    line.grid x1="0" x2="100%" y1=(line) y2=(line) {}
                }
                @for (index, bin) in over_time.bins.iter().enumerate() {
                    (bar(bin, chart, (index, bins), top))
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

/// One bar, its parts from bottom to top. Its whole column shows the numbers as a tooltip.
fn bar(bin: &Bin, chart: &Chart, (index, bins): (usize, usize), top: u64) -> Markup {
    let by_fate = (chart.by_fate)(bin);
    let column = 100.0 / number(bins);
    let left = column * number(index);
    let mut under = 0;
    let parts: Vec<(Fate, u64, u64)> = ORDER
        .into_iter()
        .filter_map(|fate| {
            let count = *by_fate.get(&fate)?;
            under += count;
            Some((fate, count, under))
        })
        .collect();
    if parts.is_empty() {
        return html! {};
    }
    html! {
        g {
            title { (moment(&bin.start)) ": " (text::fates(by_fate)) }
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
            summary { "As a table" }
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
                                th scope="row" { (moment(&bin.start)) }
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

fn describe(over_time: &OverTime, chart: &Chart) -> String {
    let first = over_time.bins.iter().find(|bin| bin.failures() != 0);
    let worst = over_time.bins.iter().rev().max_by_key(|bin| bin.failures());
    if let (Some(first), Some(worst)) = (first, worst) {
        return format!(
            "Stacked bars, one per interval. The first failed or delayed flow is in the interval from {}; the worst \
             interval starts at {}, with {}.",
            moment(&first.start),
            moment(&worst.start),
            worst.failures()
        );
    }
    let has = |fate: &Fate| {
        over_time
            .bins
            .iter()
            .any(|bin| (chart.by_fate)(bin).contains_key(fate))
    };
    let fates = ORDER.into_iter().filter(has).map(Fate::name);
    format!(
        "Stacked bars, one per interval, of these fates: {}.",
        fates.collect::<Vec<_>>().join(", ")
    )
}

/// The intervals labelled below the chart: the first, the last, and some between them.
fn ticks(bins: &[Bin]) -> Vec<&Bin> {
    let last = bins.len().saturating_sub(1);
    let parts = last.min(4);
    let mut at: Vec<usize> = (0..=parts).map(|part| last * part / parts.max(1)).collect();
    at.dedup();
    at.into_iter().filter_map(|index| bins.get(index)).collect()
}

/// The start of an interval, as precise as its length requires.
fn label(rfc3339: &str, step_s: i64) -> String {
    match step_s {
        86_400.. => rfc3339.get(..10).unwrap_or(rfc3339).to_owned(),
        3_600.. => rfc3339.get(5..16).unwrap_or(rfc3339).replace('T', " "),
        60.. => rfc3339.get(11..16).unwrap_or(rfc3339).to_owned(),
        _ => clock(rfc3339).to_owned(),
    }
}

/// An interval's length: `minute`, `5 minutes`.
fn interval(seconds: i64) -> String {
    let (count, unit) = match seconds {
        86_400.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    match count {
        1 => unit.to_owned(),
        _ => words::count(usize::try_from(count).unwrap_or(0), unit),
    }
}

/// The next round number: 1, 2, 4, 5, 6, 8 or 10, 20, 40 and so on.
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
