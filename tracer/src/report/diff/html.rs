//! A difference as one page for a browser. It has no scripts and loads nothing.

use maud::{DOCTYPE, Markup, html};

use super::{
    Change, Difference,
    text::{text, verdict},
};
use crate::report::escape;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE: &str = "\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #8884}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}pre{overflow-x:auto;padding:1rem;background:#8882}\
tr.sure td:last-child{font-weight:bold}";

/// The page.
#[must_use]
pub fn page(difference: &Difference) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "tracer diff" }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                h1 { (difference.answer()) }
                (table("Fates", &difference.fates))
                @if !difference.causes.is_empty() {
                    (table("Causes", &difference.causes))
                }
                h2 { "For the ticket" }
                pre { (text(difference).as_str()) }
            }
        }
    };
    escape::html(page.into_string())
}

fn table(title: &str, changes: &[Change]) -> Markup {
    let share = |change: &Change, at: usize| format!("{} ({:.1} %)", change.flows[at], change.percent[at]);
    html! {
        h2 { (title) }
        table {
            thead { tr { th scope="col" { "" } th.n scope="col" { "before" } th.n scope="col" { "after" } th scope="col" { "change" } } }
            tbody {
                @for change in changes {
                    tr class=[change.is_significant.then_some("sure")] {
                        th scope="row" { (change.name) }
                        td.n { (share(change, 0)) }
                        td.n { (share(change, 1)) }
                        td { (verdict(change)) }
                    }
                }
            }
        }
    }
}
