//! Causes: the time they cost, who was affected, the evidence, and what to do.

use maud::{Markup, html};

use super::{gallery::Kept, sign::anchor};
use crate::{
    diagnose::{catalogue, evidence::Evidence, words},
    report::{
        summary::{CauseSummary, Summary, text},
        time::{TimeUnit, moment},
    },
};

/// The causes that are open when the page loads: the costliest ones.
const MOST_OPEN: usize = 3;

/// The causes; empty if there are none.
pub(super) fn section(summary: &Summary, shown: &[&Kept]) -> Markup {
    if summary.causes.is_empty() {
        return html! {};
    }
    let unit = text::time_unit(&summary.causes);
    html! {
        section id="causes" {
            h2 { "Causes" }
            (ranking(summary, unit))
            @if let Some(widest) = text::widest(summary) {
                p { (widest) }
            }
            @for (index, cause) in summary.causes.iter().enumerate() {
                (details(cause, shown, unit, index < MOST_OPEN))
            }
        }
    }
}

/// A cause that opens and closes.
fn details(cause: &CauseSummary, shown: &[&Kept], unit: TimeUnit, is_open: bool) -> Markup {
    let flows = words::count(cause.flows, "flow");
    html! {
        details.cause open[is_open] {
            summary {
                h3 { code { (cause.cause) } }
                " " span { (flows) ": " (text::fates(&cause.by_fate))
                @if cause.partly != 0 {
                    (if cause.partly == 1 { ", and a SYN of " } else { ", and SYNs of " })
                    (words::count(cause.partly, "other flow"))
                }
                "; " (unit.format(cause.lost_ms)) " lost" }
            }
            (article(cause, shown))
        }
    }
}

fn ranking(summary: &Summary, unit: TimeUnit) -> Markup {
    html! {
        table.cards {
            caption { "By time lost" }
            thead {
                tr {
                    th scope="col" { "Cause" }
                    th.number scope="col" { "Flows" }
                    th.number scope="col" { "Clients" }
                    th.number scope="col" { "Time lost" }
                    th.number scope="col" { "Median" }
                    th scope="col" { "From" }
                    th scope="col" { "To" }
                }
            }
            tbody {
                @for cause in &summary.causes {
                    tr {
                        th scope="row" { a href={ "#" (anchor(cause.cause)) } { code { (cause.cause) } } }
                        td.number data-label="Flows" { (cause.flows) }
                        td.number data-label="Clients" { (cause.clients) }
                        td.number data-label="Time lost" { (unit.format(cause.lost_ms)) }
                        td.number data-label="Median" { (unit.format(cause.median_lost_ms)) }
                        td.time data-label="From" { (moment(&cause.first)) }
                        td.time data-label="To" { (moment(&cause.last)) }
                    }
                }
            }
        }
    }
}

fn article(cause: &CauseSummary, shown: &[&Kept]) -> Markup {
    let worst = shown.iter().find(|kept| kept.ladder.cause == Some(cause.cause));
    let description = catalogue::row(cause.cause).map(|row| row.summary);
    html! {
        article id=(anchor(cause.cause)) {
            @if let Some(description) = description {
                p.says { (marked(description)) }
            }
            @if let Some(advice) = cause.advice {
                div.advice {
                    h4 { "What to do" }
                    p { (marked(advice)) }
                }
            }
            h4 { "Example" }
            p {
                span.ends { (cause.example.client) " -> " (cause.example.node) } ": " (cause.example.explanation)
            }
            h4 { "Affected" }
            dl.names {
                @for (what, names) in cause.names() {
                    @if let Some(list) = text::list(names) {
                        div { dt { (what) } dd { (list) } }
                    }
                }
            }
            @if let Some(worst) = worst {
                @if !worst.ladder.evidence.is_empty() {
                    h4 {
                        "Evidence, from "
                        a href={ "#" (worst.anchor()) } { "flow " (worst.ladder.id) }
                    }
                    (evidence(&worst.ladder.evidence))
                }
            }
        }
    }
}

/// Text of the catalogue, with the commands in backticks marked up.
pub(super) fn marked(words: &str) -> Markup {
    html! {
        @for (index, part) in words.split('`').enumerate() {
            @if index % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

/// The evidence for a cause, and where each fact was seen.
pub(super) fn evidence(evidence: &[Evidence]) -> Markup {
    html! {
        table.cards.evidence {
            thead {
                tr {
                    th scope="col" { "What" }
                    th scope="col" { "Value" }
                    th scope="col" { "Source" }
                }
            }
            tbody {
                @for fact in evidence {
                    tr {
                        th scope="row" { (fact.label()) }
                        td data-label="Value" { (fact.value) }
                        td data-label="Source" { code { (fact.source) } }
                    }
                }
            }
        }
    }
}
