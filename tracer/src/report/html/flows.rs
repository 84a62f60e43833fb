//! Flows, each with its path as a ladder diagram.

use maud::{Markup, html};

use super::{causes, gallery::Kept, recorded::Recorded, sign::fate};
use crate::{
    diagnose::words,
    finding::clock::rfc3339,
    report::{
        ladder::{Ladder, Rung, Sign},
        path::PathStep,
        summary::Summary,
    },
};

/// The flows that are drawn, and how to show the others.
pub(super) fn section(summary: &Summary, shown: &[&Kept], runs: &[Recorded]) -> Markup {
    html! {
        section id="flows" {
            h2 { "Flows, step by step" }
            p { (which(summary, shown)) }
            @if shown.len() < summary.flows {
                p { "To show another flow: " code { "tracer show FILE ID" } ". To list all: " code { "tracer replay --plain FILE" } "." }
            }
            div.tools hidden data-tools {
                label { "Filter " input type="search" data-filter placeholder="10.0.0.2, dropped, ipvs"; }
                button type="button" data-open { "Open all" }
                button type="button" data-close { "Close all" }
                span data-count role="status" {}
            }
            @for (index, kept) in shown.iter().enumerate() {
                (flow(kept, shown, (summary, runs), index == 0))
            }
        }
    }
}

fn which(summary: &Summary, shown: &[&Kept]) -> String {
    let all = words::count(summary.flows, "flow");
    if shown.len() >= summary.flows {
        return format!("{all}, most severe first.");
    }
    let what = if summary.failures == 0 {
        "the first flows"
    } else {
        "those that lost the most time, at least one for each cause, and healthy ones for comparison"
    };
    let omitted = summary.flows - shown.len();
    format!("{} of {all}: {what}. {omitted} omitted.", shown.len())
}

fn flow(kept: &Kept, shown: &[&Kept], (summary, runs): (&Summary, &[Recorded]), is_open: bool) -> Markup {
    let earlier = kept.earlier(shown);
    let ladder = &kept.ladder;
    let run = runs.get(kept.run);
    let file = run.map_or_else(|| "FILE".to_owned(), Recorded::file);
    html! {
        details.flow open[is_open] {
            summary {
                (fate(ladder.fate))
                @if let Some(cause) = ladder.cause {
                    " " code.name { (cause) }
                }
                " " span.ends { (ladder.ends) }
                " " span.times { "flow " (ladder.id) ", " (ladder.times.join(", ")) }
            }
            div.detail id=(kept.anchor()) {
                p.when {
                    (rfc3339(ladder.start))
                    @if let Some(run) = run.filter(|_| runs.len() > 1) {
                        ", on " (run.host())
                    }
                    ", " code { "tracer show " (file) " " (ladder.id) }
                }
                @if let Some((id, sentence)) = &ladder.earlier {
                    p {
                        (sentence)
                        @if let Some(earlier) = earlier {
                            " (" a href={ "#" (earlier.anchor()) } { "flow " (id) } ")"
                        }
                    }
                }
                @for other in elsewhere(summary, kept) {
                    p { (other) }
                }
                (diagram(ladder))
                p.explanation { (ladder.explanation) }
                @if !ladder.attempts.is_empty() {
                    ul { @for attempt in &ladder.attempts { li { (attempt) } } }
                }
                @if !ladder.evidence.is_empty() {
                    (causes::evidence(&ladder.evidence))
                }
                @if let Some(advice) = &ladder.advice {
                    p { "What to do: " (causes::marked(advice)) }
                }
            }
        }
    }
}

/// The same connection as other nodes saw it.
fn elsewhere(summary: &Summary, kept: &Kept) -> Vec<String> {
    let Some(several) = &summary.several else {
        return Vec::new();
    };
    let connection = several.joined.of_flow(kept.key());
    let others = connection.into_iter().flat_map(|connection| &connection.parts);
    others
        .filter(|part| part.key != kept.key())
        .map(|part| {
            let cause = part.cause.map_or_else(String::new, |cause| format!(", {cause}"));
            format!(
                "The same connection on {}: flow {} there, {}{cause}.",
                several.joined.host(part.key),
                part.key.1,
                part.fate
            )
        })
        .collect()
}

/// A row for each step. The style sheet draws rails, dots and arrows from the column numbers.
fn diagram(ladder: &Ladder) -> Markup {
    html! {
        ol.lanes aria-label="Columns of the ladder" {
            @for name in ladder.columns() {
                li { (name) }
            }
        }
        table.ladder style={ "--lanes:" (ladder.lanes.len()) } {
            thead {
                tr {
                    th.number scope="col" { "ms" }
                    th.number scope="col" { "since" }
                    th.columns scope="col" {
                        span.unseen { "Column" }
                        span aria-hidden="true" { @for lane in 1..=ladder.lanes.len() { span { (lane) } } }
                    }
                    th scope="col" { "Hook" }
                    th scope="col" { "Device" }
                    th scope="col" { "What happened" }
                }
            }
            tbody {
                @for rung in &ladder.rungs {
                    @match rung {
                        Rung::Syn(number) => tr.syn { th colspan="6" scope="rowgroup" { "SYN " (number) } },
                        Rung::Step { step, since_ms, lane, from, sign } => (row(step, *since_ms, (*from, *lane), *sign)),
                    }
                }
                @if ladder.left_out != 0 {
                    tr.syn { th colspan="6" scope="rowgroup" { (words::count(ladder.left_out, "more step")) " not kept" } }
                }
            }
        }
    }
}

fn row(step: &PathStep, since_ms: f64, (before, lane): (usize, usize), sign: Sign) -> Markup {
    let (class, mark) = match sign {
        Sign::Inward => ("inward", "▶"),
        Sign::Back => ("back", "◀"),
        Sign::There => ("there", "●"),
        Sign::End => ("end", "✗"),
    };
    // From the previous column to this one.
    let (from, wide) = (before.min(lane), before.abs_diff(lane));
    html! {
        tr class=(class) {
            td.number { (format!("{:.3}", step.t_ms)) }
            td.number.since { (format!("{since_ms:+.3}")) }
            td.rails style={ "--lane:" (lane) ";--from:" (from) ";--wide:" (wide) } {
                span.mark aria-hidden="true" { (mark) }
                span.unseen { (lane + 1) }
            }
            td.hook { code { (step.hook) } }
            td.dev { (step.dev.as_deref().unwrap_or_default()) }
            td.note {
                (step.note)
                @if let Some(verdict) = &step.verdict {
                    " = " b.verdict { (verdict) }
                }
            }
        }
    }
}
