//! The top of the page: headline, hosts, fates, and the sentences for the ticket.

use maud::{Markup, html};

use super::sign::{ORDER, sign};
use crate::diagnose::words;
use crate::report::{
    summary::{Summary, sentences, text},
    time::moment,
};

/// The title of the page.
pub(super) fn title(summary: &Summary) -> String {
    format!("tracer report: {}", summary.host_names())
}

fn headline(summary: &Summary) -> String {
    if summary.causes.is_empty() {
        summary.without_cause()
    } else {
        sentences(summary).into_iter().next().unwrap_or_default()
    }
}

/// Headline, where and when, and the fates.
pub(super) fn header(summary: &Summary) -> Markup {
    html! {
        header {
            p.brand { "tracer report" }
            h1 { (headline(summary)) }
            ul.facts {
                @for host in &summary.hosts {
                    li { "Recorded on " b { (host.host) } ", kernel " (host.kernel) }
                }
                @if let Some(filtered) = summary.filtered() {
                    li { "Filtered: " b { (filtered) } }
                }
                @if let (Some(first), Some(last)) = (&summary.first, &summary.last) {
                    li { "First flow " (moment(first)) ", last flow " (moment(last)) }
                }
                li {
                    (words::count(summary.flows, "flow")) " from " (words::count(summary.clients, "client")) "; "
                    (text::records(summary))
                }
                @if let Some(seen) = summary.several.as_ref().and_then(text::seen_by_several) {
                    li { (seen) }
                }
            }
            (fates(summary))
            nav aria-label="On this page" {
                ul {
                    @if !summary.causes.is_empty() {
                        li { a href="#ticket" { "For the ticket" } }
                        li { a href="#causes" { "Causes" } }
                    }
                    li { a href="#time" { "Over time" } }
                    li { a href="#places" { "Where" } }
                    li { a href="#flows" { "Flows" } }
                    li { a href="#recording" { "The recording" } }
                }
            }
        }
    }
}

/// A bar with a part for each fate, and the number of flows of each.
fn fates(summary: &Summary) -> Markup {
    let present = || {
        ORDER
            .into_iter()
            .filter_map(|fate| Some((fate, *summary.by_fate.get(&fate)?)))
    };
    html! {
        div.strip aria-hidden="true" {
            @for (fate, count) in present() {
                span class={ "fill " (fate.name()) } style={ "flex-grow:" (count) } {}
            }
        }
        ul.fates aria-label="Flows by fate" {
            @for (fate, count) in present() {
                li {
                    span class={ "swatch fill " (fate.name()) } aria-hidden="true" {}
                    span class={ "fate " (fate.name()) } {
                        span.sign aria-hidden="true" { (sign(fate)) } b { (count) } " " (fate.name())
                    }
                }
            }
        }
    }
}

/// The sentences for the ticket.
pub(super) fn ticket(summary: &Summary) -> Markup {
    if summary.causes.is_empty() {
        return html! {};
    }
    html! {
        section id="ticket" {
            h2 { "For the ticket" }
            div.ticket data-copy {
                @for sentence in sentences(summary) {
                    p { (sentence) }
                }
            }
        }
    }
}

/// Connections on which nodes disagree.
pub(super) fn disagreements(summary: &Summary) -> Markup {
    let Some(several) = summary
        .several
        .as_ref()
        .filter(|several| !several.disagreements.is_empty())
    else {
        return html! {};
    };
    html! {
        section id="differently" {
            h2 { "Nodes disagree" }
            @for connection in &several.disagreements {
                p { span.ends { (text::connection_of(connection)) } }
                ul {
                    @for report in text::reports_of(connection) {
                        li { (report) }
                    }
                }
            }
            @if several.others != 0 {
                p { (several.others) " more" }
            }
        }
    }
}
