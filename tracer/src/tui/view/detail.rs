//! One flow: what became of it and why, what to do, its way through the kernel, and what proves it.

use std::collections::BTreeMap;

use ratatui::style::Style;

use super::{flows::cell, pen::Pen};
use crate::{
    diagnose::catalogue,
    report::path::{Heading, PathStep},
    tui::{
        list::Column,
        model::Model,
        row::Row,
        story::Story,
        text::{clean, duration, width, wrap},
        theme::Theme,
    },
};

/// So many earlier flows of the same port are shown.
const MOST_EARLIER: usize = 8;
/// Times are shown in so many columns.
const TIME: usize = 10;
/// A gap between steps that is so long is what the client waited for.
const LONG_MS: f64 = 100.0;

/// A line: texts and how they look.
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
        let said = format!(" {below} more lines: j, PgDn ");
        let room = pen.width();
        pen.number(0, y, &said, room, model.theme.selected());
    }
}

/// All lines of the flow that is looked at, for so many columns.
#[must_use]
pub fn lines(model: &Model, columns: usize) -> Vec<Line> {
    let theme = model.theme;
    let Some(row) = model.flow_row() else {
        let said = if model.flow.is_none() {
            "No flow was chosen: choose one in Flows (2) with Enter."
        } else if model.playing.is_some() {
            "At this place in the recording this flow has not begun, or it is not remembered any more."
        } else {
            "This flow is not remembered any more."
        };
        return vec![vec![(said.to_owned(), Style::new())]];
    };
    let mut out = Vec::new();
    front(model, row, columns, &mut out);
    match model.store.story(row.id) {
        Some(story) => {
            ladder(theme, story, columns, &mut out);
            evidence(theme, story, columns, &mut out);
        }
        None => text(
            "Its steps are not remembered any more: those of the last flows are, and longer of those that went wrong.",
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

fn text(words: &str, columns: usize, style: Style, out: &mut Vec<Line>) {
    out.extend(
        wrap(&clean(words), columns)
            .into_iter()
            .map(|line| vec![(line, style)]),
    );
}

/// A heading and words behind it.
fn titled(title: &str, words: &str, columns: usize, theme: Theme, out: &mut Vec<Line>) {
    let indent = width(title) + 1;
    for (index, line) in wrap(&clean(words), columns.saturating_sub(indent))
        .into_iter()
        .enumerate()
    {
        let head = if index == 0 {
            format!("{title} ")
        } else {
            " ".repeat(indent)
        };
        out.push(vec![(head, theme.heading()), (line, Style::new())]);
    }
}

fn front(model: &Model, row: &Row, columns: usize, out: &mut Vec<Line>) {
    let (theme, to) = (model.theme, model.theme.signs().to);
    let style = theme.fate(row.fate);
    let cause = row.cause.map_or("", |cause| cause.name());
    let time = model
        .wall(row.start_ns)
        .map_or_else(String::new, |time| time.strftime("%H:%M:%S%.3fZ").to_string());
    out.push(vec![
        (format!("{} {}  ", theme.fate_sign(row.fate), row.fate), style),
        (format!("{cause}  "), theme.heading()),
        (format!("flow {}, {time}", row.id), theme.dim()),
    ]);
    let backend = model.names.text(row.backend);
    let backend = if backend.is_empty() { "no backend" } else { backend };
    let by = row
        .dataplane
        .map_or_else(String::new, |dataplane| format!(" by {}", dataplane.name()));
    let service = model.names.text(row.service);
    let service = if service.starts_with("port ") {
        String::new()
    } else {
        format!(" ({service})")
    };
    let way = format!(
        "{} {to} {}{service} {to} {backend}{by}",
        row.client(),
        model.names.text(row.node)
    );
    text(&way, columns, Style::new(), out);
    let mut numbers = vec![format!(
        "{} SYN{}",
        row.syns,
        if row.syns == 1 { "" } else { "s" }
    )];
    let story = model.store.story(row.id);
    if let Some(story) = story {
        let plural = if story.synacks == 1 { "" } else { "s" };
        numbers.push(format!("{} SYN-ACK{plural}", story.synacks));
    }
    if row.connect_us != u32::MAX {
        numbers.push(format!("connected after {}", duration(row.connect_us.into())));
    }
    if row.lost_us > 0 {
        let verb = if row.connect_us == u32::MAX {
            "waited for up to"
        } else {
            "lost"
        };
        numbers.push(format!("{verb} {}", duration(row.lost_us.into())));
    }
    text(&numbers.join(", "), columns, theme.dim(), out);
    blank(out);
    let catalogue = row.cause.and_then(catalogue::row);
    let said = story.map(|story| story.explanation.as_str());
    let said = said
        .or_else(|| catalogue.map(|row| row.summary))
        .unwrap_or_default();
    titled("Why:", said, columns, theme, out);
    if let Some(advice) = catalogue.and_then(|row| row.advice) {
        titled("Do: ", advice, columns, theme, out);
    }
}

/// The way, step by step: a column for each network namespace, from the client's side to the backend's.
fn ladder(theme: Theme, story: &Story, columns: usize, out: &mut Vec<Line>) {
    let steps = story.steps();
    let lanes = Lanes::of(story, &steps);
    blank(out);
    let is_backend = |netns: u32| {
        let takes = |step: &PathStep| {
            step.netns == Some(netns)
                && matches!(
                    step.hook,
                    "tcp_conn_request" | "tcp_v4_send_reset" | "tcp_v6_send_reset"
                )
        };
        steps.iter().any(takes)
    };
    let mut names = vec!["node".to_owned()];
    names.extend(lanes.others.iter().map(|&netns| {
        if is_backend(netns) {
            format!("backend (netns {netns})")
        } else {
            format!("netns {netns}")
        }
    }));
    // A number of a namespace that is cut off reads as another one.
    let columns_are = format!("in milliseconds; columns: {}", names.join(", "));
    titled("Way ", &columns_are, columns, theme, out);
    let rails = 2 * lanes.count() + 1;
    let hooks = steps.iter().map(|step| step.hook.len()).max().unwrap_or(0);
    let hooks = if columns >= TIME + rails + hooks + 36 {
        hooks
    } else {
        0
    };
    let mut told = 0;
    let mut before_ms = 0.0;
    for step in steps.iter() {
        while let Some(syn) = story.syns_ns.get(told)
            && crate::finding::clock::milliseconds(*syn) <= step.t_ms
        {
            told += 1;
            if story.syns_ns.len() > 1 {
                let line = format!("{:>TIME$} {}", "", theme.signs().line.repeat(3));
                out.push(vec![(format!("{line} SYN {told}"), theme.heading())]);
            }
        }
        let is_late = step.t_ms - before_ms >= LONG_MS;
        before_ms = step.t_ms;
        let time_style = if is_late { theme.heading() } else { theme.dim() };
        let (sign, style) = sign(theme, step);
        let mut line = vec![(format!("{:>TIME$.3} ", step.t_ms), time_style)];
        let lane = lanes.of_step(step);
        for column in 0..lanes.count() {
            let (text, style) = if column == lane {
                (sign, style)
            } else {
                (theme.signs().rail, theme.dim())
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
        let words = format!("{dev}{}{verdict}", step.note);
        rung(
            theme,
            step.hook,
            hooks,
            &words,
            (columns, lanes.count()),
            line,
            style,
            out,
        );
    }
}

/// One step: the function, and what happened beside it or, where that has no room, below.
#[allow(clippy::too_many_arguments, reason = "parts of one line")]
fn rung(
    theme: Theme,
    hook: &str,
    hooks: usize,
    words: &str,
    (columns, lanes): (usize, usize),
    mut line: Line,
    style: Style,
    out: &mut Vec<Line>,
) {
    let indent = TIME + 1 + 2 * lanes + 1;
    let rails = || -> Line {
        let rail = format!("{} ", theme.signs().rail).repeat(lanes);
        vec![(" ".repeat(TIME + 1), Style::new()), (rail, theme.dim())]
    };
    let is_beside = hooks > 0;
    let left = indent + if is_beside { hooks + 1 } else { 1 };
    let mut wrapped = wrap(&clean(words), columns.saturating_sub(left)).into_iter();
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
    /// The other namespaces, in the order in which the packet came to them.
    others: Vec<u32>,
}

impl Lanes {
    fn of(story: &Story, steps: &[PathStep]) -> Self {
        let mut lanes = Self {
            node: story.netns,
            by_netns: BTreeMap::from([(story.netns, 0)]),
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

/// How a step looks: which way the packet goes, or that it ends here.
fn sign(theme: Theme, step: &PathStep) -> (&'static str, Style) {
    let signs = theme.signs();
    if step.is_drop {
        return (signs.end, theme.warning());
    }
    let sign = match step.heading {
        Some(Heading::Inward) => signs.inward,
        Some(Heading::Back) => signs.back,
        None => signs.there,
    };
    (sign, Style::new())
}

fn evidence(theme: Theme, story: &Story, columns: usize, out: &mut Vec<Line>) {
    if story.evidence.is_empty() {
        return;
    }
    blank(out);
    out.push(vec![("Evidence".to_owned(), theme.heading())]);
    for fact in &story.evidence {
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

/// The flows before it from the same port.
fn earlier(model: &Model, row: &Row, out: &mut Vec<Line>) {
    if row.earlier == 0 {
        return;
    }
    let theme = model.theme;
    blank(out);
    out.push(vec![
        ("Before it, from the same client port".to_owned(), theme.heading()),
        ("  (Enter shows it)".to_owned(), theme.dim()),
    ]);
    let mut id = row.earlier;
    for _ in 0..MOST_EARLIER {
        let Some(before) = model.row_of(id) else {
            out.push(vec![(
                format!("  flow {id}, which is not remembered any more"),
                theme.dim(),
            )]);
            break;
        };
        let gap = row.start_ns.saturating_sub(before.start_ns) / 1_000;
        let cause = before.cause.map_or("", |cause| cause.name());
        let to = cell(model, before, Column::Backend);
        out.push(vec![
            (format!("  {:>8} earlier  ", duration(gap)), theme.dim()),
            (
                format!("{} {}  ", theme.fate_sign(before.fate), before.fate),
                theme.fate(before.fate),
            ),
            (format!("{to}  {cause}  flow {id}"), Style::new()),
        ]);
        id = before.earlier;
        if id == 0 {
            break;
        }
    }
}
