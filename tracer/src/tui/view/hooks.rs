//! The Hooks tab: what tracer gave up, and state, records, and CPU time of each hook.

use std::time::Duration;

use ratatui::style::Style;
use tracer_common::hook::{self, HookInfo};

use super::pen::Pen;
use crate::{
    finding::{
        costs::{Cost, Costs},
        hook_state::State,
    },
    tui::{model::Model, text::count},
};

/// The heading of the last column.
const TITLE: &str = "purpose, or why not attached";

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    let (theme, more) = (model.theme, model.theme.symbols().more);
    let begin = model.hooks_begin();
    if !model.sandbox.is_empty() {
        pen.field(
            1,
            0,
            &model.sandbox,
            pen.width().saturating_sub(1),
            more,
            theme.dim(),
        );
    }
    let heading = begin - 1;
    pen.put(1, heading, "state", theme.dim());
    pen.put(11, heading, "function or tracepoint", theme.dim());
    pen.right(36, heading, "seen", 8, theme.dim());
    pen.right(45, heading, "lost", 6, theme.dim());
    let costs = model.costs.as_ref();
    let title = costs.map_or_else(|| TITLE.to_owned(), total);
    pen.field(
        53,
        heading,
        &title,
        pen.width().saturating_sub(53),
        more,
        theme.dim(),
    );
    let hooks = model.sorted_hooks();
    let lines = pen.lines().saturating_sub(usize::from(begin));
    for (y, (place, hook)) in (begin..).zip(hooks.iter().enumerate().skip(model.hook.top).take(lines)) {
        let info = hook::ALL.iter().find(|info| info.name == hook.name);
        let style = match hook.state {
            State::Disabled => theme.warning(),
            State::Attached => Style::new(),
            _ => theme.dim(),
        };
        pen.field(1, y, hook.state.name(), 9, more, style);
        pen.field(11, y, &hook.name, 25, more, style);
        let seen = info
            .and_then(|info| model.seen.get(&info.hook))
            .copied()
            .unwrap_or(0);
        if seen > 0 {
            pen.right(36, y, &count(seen), 8, Style::new());
        }
        if let Some(lost) = model.lost.get(&hook.name) {
            pen.right(45, y, &count(*lost), 6, theme.warning());
        }
        let text = hook.why.as_deref().unwrap_or_else(|| info.map_or("", purpose));
        let text = match costs.and_then(|costs| each(costs, &hook.name)) {
            Some(cost) => format!("{cost}  {text}"),
            None => text.to_owned(),
        };
        pen.field(53, y, &text, pen.width().saturating_sub(53), more, style);
        if place == model.hook.place {
            pen.put(0, y, theme.symbols().cursor, theme.key());
            pen.paint(y, theme.selected());
        }
    }
}

/// The heading with the CPU time of all hooks.
fn total(costs: &Costs) -> String {
    let run_ns: u64 = costs.by_hook.values().map(|cost| cost.run_ns).sum();
    let share = 100.0 * Duration::from_nanos(run_ns).as_secs_f64() / costs.over.as_secs_f64().max(1e-9);
    format!("total {share:.2} % of one CPU; {TITLE}")
}

/// Runs of a hook each second, and nanoseconds for each run.
fn each(costs: &Costs, name: &str) -> Option<String> {
    let Cost { runs, run_ns } = *costs.by_hook.get(name)?;
    let each = run_ns.checked_div(runs)?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rounded rate for display"
    )]
    let rate = (runs as f64 / costs.over.as_secs_f64().max(1e-9)).round() as u64;
    Some(format!("{}/s, {} ns each", count(rate), count(each)))
}

fn purpose(info: &HookInfo) -> &'static str {
    info.purpose
}
