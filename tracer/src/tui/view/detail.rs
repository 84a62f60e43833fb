//! The Flow tab: fate, cause, advice, path and evidence of one flow.

use std::collections::BTreeMap;

use ratatui::style::Style;
use tracer_common::hook;

use super::{flows::cell, pen::Pen};
use crate::{
    diagnose::catalogue,
    report::path::{Heading, PathStep},
    tui::{
        flow_detail::FlowDetail,
        list::Column,
        model::Model,
        row::Row,
        text::{clean, duration, quantity, width, wrap},
        theme::Theme,
    },
};

/// The most earlier flows of the same port that are shown.
const MAX_EARLIER: usize = 8;
/// Columns of a time.
const TIME: usize = 10;
/// A gap between steps that the client notices: its time is highlighted.
const LONG_MS: f64 = 100.0;

/// A line: texts and their styles.
pub type Line = Vec<(String, Style)>;

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let lines = lines(model, pen.columns());
    let is_more = lines.len() > model.flow_top + pen.lines();
    let height = pen.lines() - usize::from(is_more);
    for (y, line) in (0..).zip(lines.iter().skip(model.flow_top).take(height)) {
        let mut x = 0;
        for (text, style) in line {
            x = pen.put(x, y, text, *style);
        }
    }
    let below = lines.len().saturating_sub(model.flow_top + height);
    if below > 0 {
        let y = pen.height() - 1;
        let text = format!(" {}: j, PgDn ", quantity(below as u64, "more line", "more lines"));
        let room = pen.width();
        pen.right(0, y, &text, room, model.theme.selected());
    }
}

/// All lines of the open flow, wrapped to `columns`.
#[must_use]
pub fn lines(model: &Model, columns: usize) -> Vec<Line> {
    let theme = model.theme;
    let Some(row) = model.flow_row() else {
        let message = if model.flow.is_none() {
            "No flow selected. Choose one in Flows (2) and press Enter."
        } else if model.playing.is_some() {
            "This flow has not started at this position in the recording, or is no longer kept."
        } else {
            "This flow is no longer kept."
        };
        return vec![vec![(message.to_owned(), Style::new())]];
    };
    let mut out = Vec::new();
    summary(model, row, columns, &mut out);
    match model.store.detail(row.id) {
        Some(detail) => {
            ladder(theme, detail, columns, &mut out);
            evidence(theme, detail, columns, &mut out);
        }
        None => text(
            "The path is no longer kept: tracer keeps those of the latest flows, and those of failures longer.",
            columns,
            theme.dim(),
            &mut out,
        ),
    }
    earlier(model, row, &mut out);
    out
}

fn blank(out: &mut Vec<Line>) {
    out.push(Line::new());
}

fn text(text: &str, columns: usize, style: Style, out: &mut Vec<Line>) {
    out.extend(
        wrap(&clean(text), columns)
            .into_iter()
            .map(|line| vec![(line, style)]),
    );
}

/// The most columns by which the lines below a heading are indented.
const MAX_INDENT: usize = 5;

/// A heading and the text after it.
fn titled(title: &str, text: &str, columns: usize, theme: Theme, out: &mut Vec<Line>) {
    let indent = (width(title) + 1).min(MAX_INDENT);
    // A longer heading shortens only the first line: a placeholder word reserves the room for wrapping.
    let rest = width(title) + 1 - indent;
    let placeholder = match rest {
        0 => String::new(),
        rest => format!("{} ", "-".repeat(rest - 1)),
    };
    let text = format!("{placeholder}{}", clean(text));
    for (index, line) in wrap(&text, columns.saturating_sub(indent))
        .into_iter()
        .enumerate()
    {
        let (head, line) = if index == 0 {
            (format!("{title} "), line.chars().skip(rest).collect())
        } else {
            (" ".repeat(indent), line)
        };
        out.push(vec![(head, theme.heading()), (line, Style::new())]);
    }
}

/// Fate, cause, addresses, counts and advice.
fn summary(model: &Model, row: &Row, columns: usize, out: &mut Vec<Line>) {
    let (theme, to) = (model.theme, model.theme.symbols().to);
    let style = theme.outcome(row.outcome());
    let cause = row.cause.map_or("", |cause| cause.name());
    let time = model
        .wall(row.start_ns)
        .map_or_else(String::new, |time| time.strftime("%H:%M:%S%.3fZ").to_string());
    out.push(vec![
        (
            format!("{} {}  ", theme.outcome_symbol(row.outcome()), row.fate),
            style,
        ),
        (format!("{cause}  "), theme.heading()),
        (format!("flow {}, {time}", row.id), theme.dim()),
    ]);
    let backend = model.names.text(row.backend);
    let backend = if backend.is_empty() { "no backend" } else { backend };
    let via = row
        .dataplane
        .map_or_else(String::new, |dataplane| format!(" via {}", dataplane.name()));
    let service = model.names.text(row.service);
    let service = if service.starts_with("port ") {
        String::new()
    } else {
        format!(" ({service})")
    };
    let addresses = format!(
        "{} {to} {}{service} {to} {backend}{via}",
        row.client(),
        model.names.text(row.node)
    );
    text(&addresses, columns, Style::new(), out);
    let mut numbers = vec![quantity(row.syns.into(), "SYN", "SYNs")];
    let detail = model.store.detail(row.id);
    if let Some(detail) = detail {
        numbers.push(quantity(detail.synacks.into(), "SYN-ACK", "SYN-ACKs"));
    }
    if row.connect_us != u32::MAX {
        numbers.push(format!("connected after {}", duration(row.connect_us.into())));
    }
    if row.lost_us > 0 {
        let time = duration(row.lost_us.into());
        numbers.push(format!("{time} lost"));
    }
    text(&numbers.join(", "), columns, theme.dim(), out);
    blank(out);
    let catalogue = row.cause.and_then(catalogue::row);
    let why = detail.map(|detail| detail.explanation.as_str());
    let why = why
        .or_else(|| catalogue.map(|row| row.summary))
        .unwrap_or_default();
    titled("Why:", why, columns, theme, out);
    for attempt in detail.into_iter().flat_map(|detail| &detail.attempts) {
        titled(&attempt.title, &attempt.text, columns, theme, out);
    }
    let advice = match detail {
        Some(detail) => detail.advice.as_deref(),
        None => catalogue.and_then(|row| row.advice),
    };
    if let Some(advice) = advice {
        titled("What to do:", advice, columns, theme, out);
    }
}

/// The path, step by step, with a column for each network namespace from client to backend.
fn ladder(theme: Theme, detail: &FlowDetail, columns: usize, out: &mut Vec<Line>) {
    let steps = detail.steps();
    let lanes = Lanes::of(detail, &steps);
    blank(out);
    let is_backend = |netns: u32| {
        let here = |step: &&PathStep| step.netns == Some(netns);
        steps.iter().filter(here).any(|step| is_tcp_input(step.hook))
    };
    let mut names = vec!["node".to_owned()];
    names.extend(lanes.others.iter().map(|&netns| {
        if is_backend(netns) {
            format!("backend (netns {netns})")
        } else {
            format!("netns {netns}")
        }
    }));
    // Wrapped, not cut: half a namespace number reads as another one.
    let legend = format!("time in ms; columns: {}", names.join(", "));
    titled("Path", &legend, columns, theme, out);
    let rails = 2 * lanes.count() + 1;
    let hooks = steps.iter().map(|step| step.hook.len()).max().unwrap_or(0);
    let hooks = if columns >= TIME + rails + hooks + 36 {
        hooks
    } else {
        0
    };
    let mut syns = 0;
    let mut before_ms = 0.0;
    for step in steps.iter() {
        while let Some(syn) = detail.syns_ns.get(syns)
            && crate::finding::clock::milliseconds(*syn) <= step.t_ms
        {
            syns += 1;
            if detail.syns_ns.len() > 1 {
                let line = format!("{:>TIME$} {}", "", theme.symbols().line.repeat(3));
                out.push(vec![(format!("{line} SYN {syns}"), theme.heading())]);
            }
        }
        let is_gap = step.t_ms - before_ms >= LONG_MS;
        before_ms = step.t_ms;
        let time_style = if is_gap { theme.heading() } else { theme.dim() };
        let (symbol, style) = symbol(theme, step);
        let mut line = vec![(format!("{:>TIME$.3} ", step.t_ms), time_style)];
        let lane = lanes.of_step(step);
        for column in 0..lanes.count() {
            let (text, style) = if column == lane {
                (symbol, style)
            } else {
                (theme.symbols().rail, theme.dim())
            };
            line.push((format!("{text} "), style));
        }
        let dev = step
            .dev
            .as_deref()
            .map_or_else(String::new, |dev| format!("{dev}: "));
        let verdict = step
            .verdict
            .as_deref()
            .map_or_else(String::new, |verdict| format!(" = {verdict}"));
        let note = format!("{dev}{}{verdict}", step.note);
        step_lines(
            theme,
            step.hook,
            hooks,
            &note,
            (columns, lanes.count()),
            line,
            style,
            out,
        );
    }
}

/// Whether TCP receives the packet in this function.
fn is_tcp_input(function: &str) -> bool {
    let info = hook::ALL.iter().find(|info| info.name == function);
    info.is_some_and(|info| info.hook.ipv4_twin().unwrap_or(info.hook).is_tcp_input())
}

/// One step: the function with its note next to it or, on a narrow screen, below.
#[allow(clippy::too_many_arguments, reason = "parts of one line")]
fn step_lines(
    theme: Theme,
    hook: &str,
    hooks: usize,
    note: &str,
    (columns, lanes): (usize, usize),
    mut line: Line,
    style: Style,
    out: &mut Vec<Line>,
) {
    let indent = TIME + 1 + 2 * lanes + 1;
    let rails = || -> Line {
        let rail = format!("{} ", theme.symbols().rail).repeat(lanes);
        vec![(" ".repeat(TIME + 1), Style::new()), (rail, theme.dim())]
    };
    let is_beside = hooks > 0;
    let left = indent + if is_beside { hooks + 1 } else { 1 };
    let mut wrapped = wrap(&clean(note), columns.saturating_sub(left)).into_iter();
    line.push((format!(" {hook:<hooks$} "), style));
    if is_beside {
        line.push((wrapped.next().unwrap_or_default(), Style::new()));
    }
    out.push(line);
    for more in wrapped {
        let mut line = rails();
        line.push((" ".repeat(left + 1 - indent), Style::new()));
        line.push((more, Style::new()));
        out.push(line);
    }
}

/// The columns of the ladder.
struct Lanes {
    node: u32,
    by_netns: BTreeMap<u32, usize>,
    /// The other namespaces, in the order of the path.
    others: Vec<u32>,
}

impl Lanes {
    fn of(detail: &FlowDetail, steps: &[PathStep]) -> Self {
        let mut lanes = Self {
            node: detail.netns,
            by_netns: BTreeMap::from([(detail.netns, 0)]),
            others: Vec::new(),
        };
        for netns in steps.iter().filter_map(|step| step.netns) {
            let next = lanes.by_netns.len();
            if let std::collections::btree_map::Entry::Vacant(entry) = lanes.by_netns.entry(netns) {
                entry.insert(next);
                lanes.others.push(netns);
            }
        }
        lanes
    }

    fn count(&self) -> usize {
        self.by_netns.len()
    }

    fn of_step(&self, step: &PathStep) -> usize {
        let netns = step.netns.unwrap_or(self.node);
        self.by_netns.get(&netns).copied().unwrap_or_default()
    }
}

/// The symbol of a step: the direction of the packet, or its end.
fn symbol(theme: Theme, step: &PathStep) -> (&'static str, Style) {
    let symbols = theme.symbols();
    if step.is_drop {
        return (symbols.end, theme.warning());
    }
    let symbol = match step.heading {
        Some(Heading::Inward) => symbols.inward,
        Some(Heading::Back) => symbols.back,
        None => symbols.there,
    };
    (symbol, Style::new())
}

fn evidence(theme: Theme, detail: &FlowDetail, columns: usize, out: &mut Vec<Line>) {
    if detail.evidence.is_empty() {
        return;
    }
    blank(out);
    out.push(vec![("Evidence".to_owned(), theme.heading())]);
    for fact in &detail.evidence {
        let words = format!("{}: {}", fact.label(), fact.value);
        let mut lines: Vec<Line> = wrap(&clean(&words), columns.saturating_sub(2))
            .into_iter()
            .map(|line| vec![(format!("  {line}"), Style::new())])
            .collect();
        let by = format!("  [{}]", clean(&fact.source));
        match lines.last_mut() {
            Some(last) if width(&last[0].0) + width(&by) <= columns => last.push((by, theme.dim())),
            _ => lines.push(vec![(format!("  {by}"), theme.dim())]),
        }
        out.extend(lines);
    }
}

/// Earlier flows from the same client port.
fn earlier(model: &Model, row: &Row, out: &mut Vec<Line>) {
    if row.earlier == 0 {
        return;
    }
    let theme = model.theme;
    blank(out);
    out.push(vec![
        ("Earlier flows from this client port".to_owned(), theme.heading()),
        ("  Enter: open the latest".to_owned(), theme.dim()),
    ]);
    let mut id = row.earlier;
    for _ in 0..MAX_EARLIER {
        let Some(before) = model.row_of(id) else {
            out.push(vec![(format!("  flow {id} (no longer kept)"), theme.dim())]);
            break;
        };
        let gap = row.start_ns.saturating_sub(before.start_ns) / 1_000;
        let cause = before.cause.map_or("", |cause| cause.name());
        let to = cell(model, before, Column::Backend);
        out.push(vec![
            (format!("  {:>8} earlier  ", duration(gap)), theme.dim()),
            (
                format!("{} {}  ", theme.outcome_symbol(before.outcome()), before.fate),
                theme.outcome(before.outcome()),
            ),
            (format!("{to}  {cause}  flow {id}"), Style::new()),
        ]);
        id = before.earlier;
        if id == 0 {
            break;
        }
    }
}
