//! Marks of fates, and links to causes.

use maud::{Markup, html};

use crate::{diagnose::cause::Cause, flow::fate::Fate};

/// The symbol of a fate: colour is never the only mark.
pub(super) const fn sign(fate: Fate) -> &'static str {
    match fate {
        Fate::Established => "✓",
        Fate::Stalled => "~",
        Fate::Dropped => "✗",
        Fate::Refused => "!",
        Fate::Unanswered => "?",
        Fate::Pending => "…",
    }
}

/// A fate with its symbol.
pub(super) fn fate(fate: Fate) -> Markup {
    html! {
        span class={ "fate " (fate.name()) } { span.sign aria-hidden="true" { (sign(fate)) } (fate.name()) }
    }
}

/// Fates in the order of the page: most severe first, because people read it for these.
pub(super) const ORDER: [Fate; 6] = [
    Fate::Dropped,
    Fate::Refused,
    Fate::Unanswered,
    Fate::Stalled,
    Fate::Established,
    Fate::Pending,
];

/// The id of the part of the page about a cause.
pub(super) fn anchor(cause: Cause) -> String {
    format!("cause-{}", cause.name().replace('.', "-"))
}
