//! A ladder as text for a terminal.

use super::{Ladder, Rung, Sign};
use crate::{diagnose::words, finding::clock::rfc3339, report::escape::Text};

/// The ladder as several lines of text.
#[must_use]
pub fn text(ladder: &Ladder) -> Text {
    let mut out = Text::default();
    header(&mut out, ladder);
    steps(&mut out, ladder);
    reasons(&mut out, ladder);
    out
}

fn header(out: &mut Text, ladder: &Ladder) {
    let cause = ladder
        .cause
        .map_or_else(String::new, |cause| format!("  {cause}"));
    out.line(format_args!("flow {}  {}{cause}", ladder.id, ladder.fate));
    out.line(rfc3339(ladder.start));
    out.line(&ladder.ends);
    out.line(ladder.times.join(", "));
    if let Some((_, earlier)) = &ladder.earlier {
        out.line(earlier);
    }
}

fn steps(out: &mut Text, ladder: &Ladder) {
    let names: Vec<String> = ladder
        .columns()
        .enumerate()
        .map(|(lane, name)| match lane {
            0 => format!("column 1: {name}"),
            lane => format!("{}: {name}", lane + 1),
        })
        .collect();
    out.gap();
    out.line(names.join(", "));
    out.gap();
    let hooks = ladder.rungs.iter().map(|rung| match rung {
        Rung::Step { step, .. } => step.hook.len(),
        Rung::Syn(_) => 0,
    });
    let hook_width = hooks.max().unwrap_or(0);
    for rung in &ladder.rungs {
        match rung {
            Rung::Syn(number) => out.line(format_args!("{:>12} --- SYN {number}", "")),
            Rung::Step {
                step,
                since_ms,
                lane,
                sign,
                ..
            } => {
                let sign = match sign {
                    Sign::Inward => "> ",
                    Sign::Back => "< ",
                    Sign::There => "o ",
                    Sign::End => "x ",
                };
                let rungs: String = (0..ladder.lanes.len())
                    .map(|column| if column == *lane { sign } else { "| " })
                    .collect();
                let dev = step.dev.as_deref().unwrap_or_default();
                let verdict = step
                    .verdict
                    .as_deref()
                    .map_or_else(String::new, |verdict| format!(" = {verdict}"));
                out.line(format_args!(
                    "{:>12.3} {since_ms:>+10.3}  {rungs} {:<hook_width$} {dev:<10} {}{verdict}",
                    step.t_ms, step.hook, step.note
                ));
            }
        }
    }
    if let left @ 1.. = ladder.left_out {
        out.line(format_args!(
            "{:>12} {} not kept",
            "",
            words::count(left, "more step")
        ));
    }
}

fn reasons(out: &mut Text, ladder: &Ladder) {
    out.gap();
    out.line(&ladder.explanation);
    for attempt in &ladder.attempts {
        out.line(format_args!("  {attempt}"));
    }
    for evidence in &ladder.evidence {
        out.line(format_args!(
            "  {}: {} [{}]",
            evidence.label(),
            evidence.value,
            evidence.source
        ));
    }
    if let Some(advice) = &ladder.advice {
        out.gap();
        out.line(format_args!("What to do: {advice}"));
    }
}
