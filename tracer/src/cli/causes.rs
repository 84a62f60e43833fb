//! `tracer causes`: the catalogue, or the page of one cause.

use std::io::{self, Write as _};

use serde::Serialize;
use tracer_common::hook::Hook;

use super::{args::CausesOptions, exit::Failure};
use crate::{
    diagnose::{
        catalogue,
        cause::Cause,
        row::{Group, Row},
    },
    finding::outcome::CauseTerm,
    report::escape::{self, Text},
};

/// The width of the text, in columns.
const WIDTH: usize = 80;

/// Prints the list of causes, or explains one.
pub(super) fn run(options: &CausesOptions) -> Result<(), Failure> {
    let is_wanted = |row: &Row| options.cause.is_none_or(|term| term.matches(Some(row.cause)));
    let causes = Group::ALL
        .into_iter()
        .flat_map(rows_of)
        .filter(|row| is_wanted(row));
    let mut out = io::stdout().lock();
    if options.json {
        let pages: Vec<Page> = causes.map(Page::of).collect();
        escape::json_pretty(&mut out, &pages)?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    let text = match options.cause {
        Some(CauseTerm::Cause(cause)) => catalogue::row(cause).map(page).unwrap_or_default(),
        _ => list(&is_wanted),
    };
    out.write_all(text.as_str().as_bytes())?;
    Ok(out.flush()?)
}

/// The rows of a group, in the order of the documentation.
fn rows_of(group: Group) -> impl Iterator<Item = &'static Row> {
    let rows = Cause::ALL.iter().filter_map(|&cause| catalogue::row(cause));
    rows.filter(move |row| row.group == group)
}

fn list(is_wanted: &impl Fn(&Row) -> bool) -> Text {
    let mut out = Text::default();
    for group in Group::ALL {
        let rows: Vec<&Row> = rows_of(group).filter(|row| is_wanted(row)).collect();
        if rows.is_empty() {
            continue;
        }
        if !out.as_str().is_empty() {
            out.gap();
        }
        out.line(group.title());
        for row in rows {
            out.line(format_args!("  {}", row.cause));
            wrapped(&mut out, "      ", row.summary);
        }
    }
    out
}

/// All that the catalogue has about one cause.
fn page(row: &Row) -> Text {
    let mut out = Text::default();
    out.line(row.cause);
    wrapped(&mut out, "  ", row.summary);
    let hooks: Vec<String> = row.hooks.iter().map(|group| names(group).join(" or ")).collect();
    for (title, text) in [
        ("Proof", row.proof),
        ("What to do", row.advice.unwrap_or_default()),
        ("Where", row.scope),
        ("Hooks", &hooks.join("; ")),
    ] {
        if !text.is_empty() {
            out.gap();
            out.line(title);
            wrapped(&mut out, "  ", text);
        }
    }
    out
}

fn names(hooks: &[Hook]) -> Vec<&'static str> {
    hooks.iter().map(|hook| hook.name()).collect()
}

/// Adds the text in lines of at most [`WIDTH`] columns; a longer word has a line of its own.
fn wrapped(out: &mut Text, indent: &str, text: &str) {
    let mut line = indent.to_owned();
    for word in text.split_whitespace() {
        if line.len() > indent.len() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                out.line(&line);
                indent.clone_into(&mut line);
            } else {
                line.push(' ');
            }
        }
        line.push_str(word);
    }
    out.line(line);
}

/// A cause in JSON.
#[derive(Serialize)]
struct Page {
    cause: &'static str,
    group: &'static str,
    summary: &'static str,
    proof: &'static str,
    advice: Option<&'static str>,
    scope: &'static str,
    /// One hook of each group is needed.
    hooks: Vec<Vec<&'static str>>,
}

impl Page {
    fn of(row: &'static Row) -> Self {
        Self {
            cause: row.cause.name(),
            group: row.group.title(),
            summary: row.summary,
            proof: row.proof,
            advice: row.advice,
            scope: row.scope,
            hooks: row.hooks.iter().map(|group| names(group)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_listed_and_has_a_page_that_fits() {
        let list = list(&|_| true).into_string();
        for cause in Cause::ALL {
            assert!(list.contains(&format!("  {cause}\n")), "{cause}");
            let page = page(catalogue::row(*cause).expect("a row")).into_string();
            assert!(
                page.starts_with(cause.name()) && page.contains("Proof\n"),
                "{page}"
            );
            let is_narrow = |line: &str| line.chars().count() <= WIDTH || !line.trim().contains(' ');
            assert!(page.lines().all(is_narrow), "{page}");
        }
    }
}
