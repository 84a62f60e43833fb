//! The lines above every tab: titles, status, and the timeline of a recording.

use ratatui::style::{Modifier, Style};

use super::pen::Pen;
use crate::{
    finding::hook_state::State,
    tui::{
        message::Playing,
        model::{Model, Tab},
        text::{clean, count, duration, quantity, width},
    },
};

pub(super) fn draw(model: &Model, mut pen: Pen<'_>) {
    titles(model, &mut pen);
    status(model, &mut pen);
    if let Some(playing) = &model.playing {
        timeline(model, playing, &mut pen);
    }
}

fn titles(model: &Model, pen: &mut Pen<'_>) {
    let theme = model.theme;
    let mut x = pen.put(0, 0, "tracer ", theme.heading());
    for (number, tab) in (1..).zip(Tab::ALL) {
        let style = if tab == model.tab {
            theme.selected().add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        };
        x = pen.put(x, 0, " ", Style::new());
        x = pen.put(x, 0, &format!(" {number} {} ", tab.title()), style);
    }
    let room = pen.width().saturating_sub(x + 2);
    let host = format!("{}  {}", model.host, model.kernel);
    let host = if width(&host) <= usize::from(room) {
        host
    } else {
        model.host.clone()
    };
    pen.right(x + 2, 0, &clean(&host), room, theme.dim());
}

/// A part of the status line. On a narrow screen, the parts with the highest rank are left out.
struct Part {
    rank: u8,
    text: String,
    style: Style,
}

fn status(model: &Model, pen: &mut Pen<'_>) {
    let state = state(model);
    let style = if model.frozen.is_some() {
        model.theme.selected()
    } else {
        model.theme.dim()
    };
    let room = pen.columns().saturating_sub(width(&state) + 1);
    let mut parts = parts(model);
    let used = |parts: &[Part]| parts.iter().map(|part| width(&part.text) + 2).sum::<usize>();
    while used(&parts) > room + 2
        && let Some(last) = parts.iter().map(|part| part.rank).max().filter(|&rank| rank > 0)
    {
        parts.retain(|part| part.rank != last);
    }
    let mut x = 0;
    for part in parts {
        x = pen.put(x, 1, &part.text, part.style) + 2;
    }
    let x = x.saturating_sub(1);
    pen.right(x, 1, &state, pen.width().saturating_sub(x), style);
}

/// The parts of the status line, in the order of the screen.
fn parts(model: &Model) -> Vec<Part> {
    let theme = model.theme;
    let all = &model.totals.all;
    let part = |rank, text, style| Part { rank, text, style };
    let mut parts = vec![part(0, quantity(all.flows(), "flow", "flows"), Style::new())];
    if all.failures > 0 {
        let text = quantity(all.failures, "failure", "failures");
        parts.push(part(0, text, theme.warning()));
    }
    let records = if model.playing.is_some() {
        quantity(model.records, "record", "records")
    } else {
        format!("{} rec/s", count(model.rate))
    };
    parts.push(part(2, records, theme.dim()));
    let lost = model.lost_records();
    let style = if lost == 0 { theme.dim() } else { theme.warning() };
    parts.push(part(0, quantity(lost, "record lost", "records lost"), style));
    if model.evicted > 0 {
        let text = quantity(model.evicted, "flow evicted", "flows evicted");
        parts.push(part(0, text, theme.warning()));
    }
    if let Some(damage) = &model.damage {
        let is_damaged = damage.contains(": damaged");
        let text = if is_damaged { "DAMAGED" } else { "INCOMPLETE" };
        parts.push(part(0, text.to_owned(), theme.warning()));
    }
    let hooks = |state| model.count_hooks(state) as u64;
    let text = quantity(hooks(State::Attached), "hook attached", "hooks attached");
    parts.push(part(3, text, theme.dim()));
    let disabled = hooks(State::Disabled);
    if disabled > 0 {
        let text = quantity(disabled, "hook disabled", "hooks disabled");
        parts.push(part(1, text, theme.warning()));
    }
    parts
}

/// The right end of the status line: frozen, ended, or the time.
fn state(model: &Model) -> String {
    if let Some(frozen) = &model.frozen {
        let since = model.totals.all.flows().saturating_sub(frozen.flows);
        format!("FROZEN, {} new", count(since))
    } else if model.has_ended && model.playing.is_none() {
        "ENDED".to_owned()
    } else {
        model
            .wall(model.now_ns)
            .map_or_else(String::new, |time| time.strftime("%H:%M:%SZ").to_string())
    }
}

/// The position in the recording, and where flows failed.
fn timeline(model: &Model, playing: &Playing, pen: &mut Pen<'_>) {
    let (theme, symbols) = (model.theme, model.theme.symbols());
    let whole = playing.end_ns.saturating_sub(playing.begin_ns).max(1);
    let at = playing.now_ns.saturating_sub(playing.begin_ns).min(whole);
    let state = match (playing.is_seeking, playing.is_paused, playing.speed) {
        (true, ..) => "seeking".to_owned(),
        (_, true, _) => "paused".to_owned(),
        (_, _, 0) => "maximum speed".to_owned(),
        (_, _, speed) => format!("{speed}x"),
    };
    let times = format!(
        " {} of {}  {state}",
        duration(at / 1_000),
        duration(whole / 1_000)
    );
    let bar = pen
        .width()
        .saturating_sub(u16::try_from(width(&times)).unwrap_or(u16::MAX));
    if bar < 10 {
        pen.put(0, 2, &times, Style::new());
        return;
    }
    let column = |ns: u64| {
        let part = u128::from(ns.min(whole)) * u128::from(bar - 1) / u128::from(whole);
        u16::try_from(part).unwrap_or(bar - 1)
    };
    let here = column(at);
    for x in 0..bar {
        let symbol = if x <= here { symbols.full } else { symbols.empty };
        pen.put(x, 2, symbol, theme.dim());
    }
    for failure in &playing.failures {
        let x = column(failure.saturating_sub(playing.begin_ns));
        pen.put(x, 2, "!", theme.warning());
    }
    pen.put(here, 2, symbols.there, theme.key());
    pen.put(bar, 2, &times, Style::new());
}
