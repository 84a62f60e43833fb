//! Flows by service, NodePort, backend, client and source port.

use maud::{Markup, html};

use crate::report::{
    summary::{Place, Ranking, Summary},
    time::TimeUnit,
};

/// One table for each kind, with the most failed and delayed flows first.
pub(super) fn section(summary: &Summary) -> Markup {
    html! {
        section id="places" {
            h2 { "Where" }
            div.places {
                @for (what, ranking) in summary.places.kinds() {
                    @if !ranking.most.is_empty() {
                        (table(what, ranking))
                    }
                }
            }
        }
    }
}

fn table(what: &str, ranking: &Ranking) -> Markup {
    let unit = TimeUnit::of(ranking.most.iter().map(|place| place.lost_ms));
    html! {
        table {
            caption { "By " (what) }
            thead {
                tr {
                    th scope="col" { (capital(what)) }
                    th.number scope="col" { "Flows" }
                    th.number scope="col" { "Failures" }
                    th.number scope="col" { "Time lost" }
                }
            }
            tbody {
                @for place in &ranking.most {
                    tr {
                        th scope="row" { (place.name) }
                        td.number { (place.flows) }
                        td.number {
                            span.part { (place.failures) }
                            span.meter aria-hidden="true" { span style={ "width:" (share(place)) "%" } {} }
                        }
                        td.number { (unit.format(place.lost_ms)) }
                    }
                }
            }
            @if ranking.others != 0 {
                tfoot { tr { td colspan="4" { (ranking.others) " more" } } }
            }
        }
    }
}

fn share(place: &Place) -> u64 {
    match place.failures.saturating_mul(100).checked_div(place.flows) {
        // A bar that is not zero must be visible.
        Some(0) if place.failures != 0 => 1,
        share => share.unwrap_or(0),
    }
}

fn capital(what: &str) -> String {
    let mut letters = what.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
