//! A difference for people.

use super::{Change, Difference, QUANTILES, probability};
use crate::{
    diagnose::words,
    report::{
        escape::Text,
        time::{TimeUnit, moment},
    },
};

/// The difference as several lines of text.
#[must_use]
pub fn text(difference: &Difference) -> Text {
    let mut out = Text::default();
    out.line(difference.answer());
    out.gap();
    for (side, when) in difference.sides.iter().zip(["before", "after"]) {
        let times = match (&side.first, &side.last) {
            (Some(first), Some(last)) => format!(", {} to {}", moment(first), moment(last)),
            _ => String::new(),
        };
        out.line(format_args!(
            "{when:<6}  {}: {} on {}, kernel {}{times}",
            side.file,
            words::count(side.flows, "connection"),
            side.host,
            side.kernel
        ));
    }
    table(&mut out, "fate", &difference.fates);
    if !difference.causes.is_empty() {
        table(&mut out, "cause", &difference.causes);
    }
    times(&mut out, difference);
    if !difference.doubts.is_empty() {
        out.gap();
        for doubt in &difference.doubts {
            out.line(doubt);
        }
    }
    out.gap();
    out.line(format_args!("p: {}.", difference.test));
    out
}

fn table(out: &mut Text, title: &str, changes: &[Change]) {
    let width = changes.iter().map(|change| change.name.len());
    let width = width.fold(title.len(), usize::max);
    out.gap();
    out.line(format_args!("{title:<width$}  {:>17}  {:>17}", "before", "after"));
    for change in changes {
        let share = |at: usize| format!("{} ({:.1} %)", change.flows[at], change.percent[at]);
        out.line(format_args!(
            "{:<width$}  {:>17}  {:>17}  {}",
            change.name,
            share(0),
            share(1),
            verdict(change)
        ));
    }
}

/// How an outcome changed, and whether it can be chance.
pub(super) fn verdict(change: &Change) -> String {
    let blind: Vec<&str> = change
        .undetectable
        .iter()
        .map(|&at| if at == 0 { "before" } else { "after" })
        .collect();
    if !blind.is_empty() {
        return format!(
            "{}: not detectable {}",
            change.verdict.name(),
            blind.join(" and ")
        );
    }
    let chance = if change.is_significant {
        "hardly chance"
    } else {
        "can be chance"
    };
    format!("{}: {chance}, {}", change.verdict.name(), probability(change.p))
}

fn times(out: &mut Text, difference: &Difference) {
    let connect = &difference.connect;
    let all = connect.quantiles.iter().flat_map(|quantile| quantile.ms);
    let unit = TimeUnit::of(all.flatten());
    let format = |ms: Option<f64>| ms.map_or_else(|| "none".to_owned(), |ms| connect_time(unit, ms));
    out.gap();
    out.line(format_args!(
        "{:<20}  {:>9}  {:>9}",
        "time to connect", "before", "after"
    ));
    for (quantile, percent) in connect.quantiles.iter().zip(QUANTILES) {
        let name = match percent {
            50 => "median".to_owned(),
            100 => "longest".to_owned(),
            percent => format!("{percent} %"),
        };
        out.line(format_args!(
            "{name:<20}  {:>9}  {:>9}",
            format(quantile.ms[0]),
            format(quantile.ms[1])
        ));
    }
    let chance = match connect.p {
        None => "too few connections to compare".to_owned(),
        Some(p) if connect.is_significant => format!("hardly chance, {}", probability(p)),
        Some(p) => format!("can be chance, {}", probability(p)),
    };
    out.line(format_args!("{:<20}  {chance}", "difference"));
    let unit = TimeUnit::of(difference.lost_ms);
    let [before, after] = difference.lost_ms.map(|ms| unit.format(ms));
    out.line(format_args!("{:<20}  {before:>9}  {after:>9}", "time lost"));
    let unit = TimeUnit::of(difference.lost_ms_per_1000);
    let [before, after] = difference.lost_ms_per_1000.map(|ms| unit.format(ms));
    out.line(format_args!(
        "{:<20}  {before:>9}  {after:>9}",
        "  per 1000 flows"
    ));
}

/// A time to connect: short ones with a fraction.
pub(super) fn connect_time(unit: TimeUnit, ms: f64) -> String {
    match unit {
        TimeUnit::Milliseconds => format!("{ms:.1} ms"),
        TimeUnit::Seconds | TimeUnit::Minutes => {
            if ms < 100.0 {
                format!("{:.3} s", ms / 1_000.0)
            } else {
                unit.format(ms)
            }
        }
    }
}
