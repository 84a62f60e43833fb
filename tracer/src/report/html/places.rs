//! Where it happened: services, NodePorts, backends, clients, source ports.

use maud::{Markup, html};

use crate::report::summary::{Place, Ranking, Summary, text};

/// One table for each kind, those first where most did not go well.
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
    html! {
        table {
            caption { "By " (what) }
            thead {
                tr {
                    th scope="col" { (capital(what)) }
                    th.number scope="col" { "Flows" }
                    th.number scope="col" { "Not well" }
                    th.number scope="col" { "Lost" }
                }
            }
            tbody {
                @for place in &ranking.most {
                    tr {
                        th scope="row" { (place.name) }
                        td.number { (place.flows) }
                        td.number {
                            span.part { (place.not_well) }
                            span.meter aria-hidden="true" { span style={ "width:" (share(place)) "%" } {} }
                        }
                        td.number { (text::time(place.lost_ms)) }
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
    match place.not_well.saturating_mul(100).checked_div(place.flows) {
        // What is there must be seen.
        Some(0) if place.not_well != 0 => 1,
        share => share.unwrap_or(0),
    }
}

fn capital(what: &str) -> String {
    let mut letters = what.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
