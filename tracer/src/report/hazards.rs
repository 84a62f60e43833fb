//! The hazards of a node as text.

use super::escape::Text;
use crate::check::{Judged, State};

/// Width of the column with the names.
const WIDTH: usize = 19;

/// One line for each hazard that is not fine, by severity, and a line that counts the others. With `verbose`, evidence and
/// advice below each, and the others too.
#[must_use]
pub fn text(judged: &[Judged], verbose: bool) -> String {
    let mut out = Text::default();
    for Judged { hazard, state } in judged {
        if matches!(state, State::Fine(_)) && !verbose {
            continue;
        }
        out.line(format_args!(
            "{:<7} {:<WIDTH$} {}",
            state.name(),
            hazard.id,
            state.summary()
        ));
        let Some(details) = state.details().filter(|_| verbose) else {
            continue;
        };
        for evidence in &details.evidence {
            out.line(format_args!("        {evidence}"));
        }
        out.line(format_args!("        why: {} ({})", hazard.why, hazard.reference));
        out.line(format_args!("        do: {}", details.advice));
        out.gap();
    }
    out.line(counts(judged));
    out.into_string()
}

/// The section of a report: the hazards that hurt or are armed, with what to do.
#[must_use]
pub fn section(host: &str, judged: &[Judged]) -> String {
    let mut out = Text::default();
    out.gap();
    out.line(format_args!(
        "Hazards on {host} when recording began: {}",
        counts(judged)
    ));
    for Judged { hazard, state } in judged {
        if let Some(details) = state.details() {
            out.line(format_args!(
                "  {:<7} {:<WIDTH$} {}",
                state.name(),
                hazard.id,
                details.summary
            ));
            out.line(format_args!("          do: {}", details.advice));
        }
    }
    out.into_string()
}

/// How many hazards are in each state.
#[must_use]
pub fn counts(judged: &[Judged]) -> String {
    let number = |rank| judged.iter().filter(|judged| judged.state.rank() == rank).count();
    let (hurts, armed, unknown, fine) = (number(0), number(1), number(2), number(3));
    let hurts = match hurts {
        0 => String::new(),
        1 => "1 hurts, ".to_owned(),
        several => format!("{several} hurt, "),
    };
    format!("{hurts}{armed} armed, {unknown} unknown, {fine} fine")
}
