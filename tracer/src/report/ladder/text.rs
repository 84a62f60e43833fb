//! A ladder as text for a terminal.

use std::fmt::Write as _;

use super::{Ladder, Rung, Sign};
use crate::{diagnose::words, finding::clock::rfc3339};

/// The ladder as several lines of text.
#[must_use]
pub fn text(ladder: &Ladder) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = header(&mut out, ladder);
    let _ = steps(&mut out, ladder);
    let _ = reasons(&mut out, ladder);
    out
}

fn header(out: &mut String, ladder: &Ladder) -> std::fmt::Result {
    let cause = ladder
        .cause
        .map_or_else(String::new, |cause| format!("  {cause}"));
    writeln!(out, "flow {}  {}{cause}", ladder.id, ladder.fate)?;
    writeln!(out, "{}", rfc3339(ladder.start))?;
    writeln!(out, "{}", ladder.ends)?;
    writeln!(out, "{}", ladder.times.join(", "))?;
    if let Some((_, earlier)) = &ladder.earlier {
        writeln!(out, "{earlier}")?;
    }
    Ok(())
}

fn steps(out: &mut String, ladder: &Ladder) -> std::fmt::Result {
    let names: Vec<String> = ladder
        .columns()
        .enumerate()
        .map(|(lane, name)| match lane {
            0 => format!("column 1: {name}"),
            lane => format!("{}: {name}", lane + 1),
        })
        .collect();
    writeln!(out, "\n{}\n", names.join(", "))?;
    let hooks = ladder.rungs.iter().map(|rung| match rung {
        Rung::Step { step, .. } => step.hook.len(),
        Rung::Syn(_) => 0,
    });
    let hook_width = hooks.max().unwrap_or(0);
    for rung in &ladder.rungs {
        match rung {
            Rung::Syn(number) => writeln!(out, "{:>12} --- SYN {number}", "")?,
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
                writeln!(
                    out,
                    "{:>12.3} {since_ms:>+10.3}  {rungs} {:<hook_width$} {dev:<10} {}{verdict}",
                    step.t_ms, step.hook, step.note
                )?;
            }
        }
    }
    if let left @ 1.. = ladder.left_out {
        writeln!(out, "{:>12} {} not kept", "", words::count(left, "more step"))?;
    }
    Ok(())
}

fn reasons(out: &mut String, ladder: &Ladder) -> std::fmt::Result {
    writeln!(out, "\n{}", ladder.explanation)?;
    for attempt in &ladder.attempts {
        writeln!(out, "  {attempt}")?;
    }
    for evidence in &ladder.evidence {
        writeln!(
            out,
            "  {}: {} [{}]",
            evidence.label(),
            evidence.value,
            evidence.source
        )?;
    }
    if let Some(advice) = &ladder.advice {
        writeln!(out, "\nWhat to do: {advice}")?;
    }
    Ok(())
}
