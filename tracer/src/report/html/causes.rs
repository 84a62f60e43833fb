//! Causes: which cost most, whom they hit, what proves them, what to do.

use maud::{Markup, html};

use super::{anchor, gallery::Kept};
use crate::{
    diagnose::{catalogue, evidence::Evidence},
    report::summary::{CauseSummary, Summary, text},
};

/// So many causes are told of without being asked, those that cost most.
const MOST_OPEN: usize = 3;

/// Nothing if nothing went wrong.
pub(super) fn section(summary: &Summary, shown: &[&Kept]) -> Markup {
    if summary.causes.is_empty() {
        return html! {};
    }
    html! {
        section id="causes" {
            h2 { "Causes" }
            (ranking(summary))
            @if let Some(widest) = text::widest(summary) {
                p { (widest) }
            }
            @for (index, cause) in summary.causes.iter().enumerate() {
                (told(cause, shown, index < MOST_OPEN))
            }
        }
    }
}

/// A cause, open or to be opened.
fn told(cause: &CauseSummary, shown: &[&Kept], is_open: bool) -> Markup {
    let flows = text::plural(usize::try_from(cause.flows).unwrap_or(usize::MAX), "flow");
    html! {
        details.cause open[is_open] {
            summary {
                h3 { code { (cause.cause) } }
                " " span { (flows) ": " (text::fates(&cause.by_fate)) "; " (text::time(cause.lost_ms)) " lost" }
            }
            (article(cause, shown))
        }
    }
}

fn ranking(summary: &Summary) -> Markup {
    html! {
        table.cards {
            caption { "By the time that they cost the clients" }
            thead {
                tr {
                    th scope="col" { "Cause" }
                    th.number scope="col" { "Flows" }
                    th.number scope="col" { "Clients" }
                    th.number scope="col" { "Lost" }
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
                        td.number data-label="Lost" { (text::time(cause.lost_ms)) }
                        td.number data-label="Median" { (text::time(cause.median_lost_ms)) }
                        td.time data-label="From" { (text::moment(&cause.first)) }
                        td.time data-label="To" { (text::moment(&cause.last)) }
                    }
                }
            }
        }
    }
}

fn article(cause: &CauseSummary, shown: &[&Kept]) -> Markup {
    let worst = shown.iter().find(|kept| kept.ladder.cause == Some(cause.cause));
    let says = catalogue::row(cause.cause).map(|row| row.summary);
    html! {
        article id=(anchor(cause.cause)) {
            @if let Some(says) = says {
                p.says { (marked(says)) }
            }
            @if let Some(advice) = cause.advice {
                div.advice {
                    h4 { "What to do" }
                    p { (marked(advice)) }
                }
            }
            h4 { "For instance" }
            p {
                span.ends { (cause.example.client) " -> " (cause.example.node) } ": " (cause.example.explanation)
            }
            h4 { "Whom it hit" }
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

/// Words of the catalogue, in which commands stand between backticks.
fn marked(words: &str) -> Markup {
    html! {
        @for (index, part) in words.split('`').enumerate() {
            @if index % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

/// What proves a cause, and what showed it.
pub(super) fn evidence(evidence: &[Evidence]) -> Markup {
    html! {
        table.cards.evidence {
            thead {
                tr {
                    th scope="col" { "What" }
                    th scope="col" { "Value" }
                    th scope="col" { "Seen at" }
                }
            }
            tbody {
                @for fact in evidence {
                    tr {
                        th scope="row" { (fact.label()) }
                        td data-label="Value" { (fact.value) }
                        td data-label="Seen at" { code { (fact.source) } }
                    }
                }
            }
        }
    }
}
