//! What is on the screen whatever the view: where one is, how tracer does, and which keys help.

use ratatui::style::{Modifier, Style};

use super::pen::Pen;
use crate::{
    finding::hook_state::State,
    flow::fate::Fate,
    tui::{
        message::Playing,
        model::{At, Model},
        row::is_trouble,
        text::{count, duration, width},
        totals::WORST_FIRST,
    },
};

pub(super) fn head(model: &Model, mut pen: Pen<'_>) {
    tabs(model, &mut pen);
    health(model, &mut pen);
    if let Some(playing) = &model.playing {
        time_line(model, playing, &mut pen);
    }
}

fn tabs(model: &Model, pen: &mut Pen<'_>) {
    let theme = model.theme;
    let mut x = pen.put(0, 0, "tracer ", theme.heading());
    for (number, at) in (1..).zip(At::ALL) {
        let style = if at == model.at {
            theme.selected().add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        };
        x = pen.put(x, 0, " ", Style::new());
        x = pen.put(x, 0, &format!(" {number} {} ", at.title()), style);
    }
    let room = pen.width().saturating_sub(x + 2);
    let whose = format!("{}  {}", model.host, model.kernel);
    let whose = if width(&whose) <= usize::from(room) {
        whose
    } else {
        model.host.clone()
    };
    pen.number(x + 2, 0, &crate::tui::text::clean(&whose), room, theme.dim());
}

fn health(model: &Model, pen: &mut Pen<'_>) {
    let theme = model.theme;
    let all = &model.totals.all;
    let is_narrow = pen.width() < 76;
    let plural = if all.flows() == 1 { "" } else { "s" };
    let mut x = pen.put(
        0,
        1,
        &format!("{} flow{plural}", count(all.flows())),
        Style::new(),
    );
    let troubled = all.troubled();
    if troubled > 0 {
        x = pen.put(x, 1, ", ", Style::new());
        x = pen.put(x, 1, &format!("{} in trouble", count(troubled)), theme.warning());
    }
    let lost = model.lost_records();
    let records = if model.playing.is_some() {
        format!("  {} records ", count(model.records))
    } else {
        format!("  {} rec/s ", count(model.rate))
    };
    x = pen.put(x, 1, &records, theme.dim());
    x = if lost == 0 {
        pen.put(x, 1, " 0 lost", theme.dim())
    } else {
        pen.put(x, 1, &format!(" {} LOST", count(lost)), theme.warning())
    };
    let attached = model.count_hooks(State::Attached);
    let disabled = model.count_hooks(State::Disabled);
    if !is_narrow {
        x = pen.put(x, 1, &format!("  {attached} hooks"), theme.dim());
    }
    if disabled > 0 {
        x = pen.put(x, 1, &format!("  {disabled} off"), theme.warning());
    }
    let state = if let Some(frozen) = &model.frozen {
        let since = all.flows().saturating_sub(frozen.flows);
        format!("PAUSED, {} new", count(since))
    } else if model.has_ended && model.playing.is_none() {
        "ENDED".to_owned()
    } else {
        model
            .wall(model.now_ns)
            .map_or_else(String::new, |time| time.strftime("%H:%M:%SZ").to_string())
    };
    let style = if model.frozen.is_some() {
        theme.selected()
    } else {
        theme.dim()
    };
    let room = pen.width().saturating_sub(x + 1);
    pen.number(x + 1, 1, &state, room, style);
}

/// Where in the recording one is, and where in it flows went wrong.
fn time_line(model: &Model, playing: &Playing, pen: &mut Pen<'_>) {
    let (theme, signs) = (model.theme, model.theme.signs());
    let whole = playing.end_ns.saturating_sub(playing.begin_ns).max(1);
    let at = playing.now_ns.saturating_sub(playing.begin_ns).min(whole);
    let state = match (playing.is_seeking, playing.is_paused, playing.speed) {
        (true, ..) => "seeking".to_owned(),
        (_, true, _) => "stopped".to_owned(),
        (_, _, 0) => "as fast as it goes".to_owned(),
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
    let place = |ns: u64| {
        let part = u128::from(ns.min(whole)) * u128::from(bar - 1) / u128::from(whole);
        u16::try_from(part).unwrap_or(bar - 1)
    };
    let here = place(at);
    for x in 0..bar {
        let sign = if x <= here { signs.full } else { signs.empty };
        pen.put(x, 2, sign, theme.dim());
    }
    for trouble in &playing.troubles {
        let x = place(trouble.saturating_sub(playing.begin_ns));
        pen.put(x, 2, "!", theme.warning());
    }
    pen.put(here, 2, signs.there, theme.key());
    pen.put(bar, 2, &times, Style::new());
}

/// Keys, what is typed, or something to be read once.
pub(super) fn foot(model: &Model, mut pen: Pen<'_>) {
    let theme = model.theme;
    if let Some(typing) = &model.typing {
        let x = pen.put(0, 0, "/", theme.key());
        // The end is what is being typed.
        let shown = crate::tui::text::fit_end(typing, pen.columns().saturating_sub(4), theme.signs().more);
        let x = pen.put(x, 0, &shown, Style::new());
        let x = pen.put(x, 0, " ", theme.selected());
        pen.put(
            x,
            0,
            "  Enter keeps it, Esc takes it off; words, port: client: service: fate: cause: drop: !not",
            theme.dim(),
        );
        return;
    }
    if let Some(notice) = &model.notice {
        pen.field(0, 0, notice, pen.width(), theme.signs().more, theme.heading());
        return;
    }
    let enter = match model.at {
        At::Overview | At::Drops => ("Enter", "its flows"),
        At::Flows => ("Enter", "its way"),
        At::Flow if model.flow_row().is_some_and(|row| row.earlier != 0) => ("Enter", "flow before it"),
        At::Flow | At::Hooks => ("", ""),
    };
    let back = if model.at == At::Overview {
        ("", "")
    } else {
        ("Esc", "back")
    };
    let mut keys = vec![enter, back];
    if model.help.is_some() {
        keys = vec![("j/k", "scroll"), ("Esc", "close")];
    } else {
        match model.at {
            At::Flows => keys.extend([
                ("/", "filter"),
                ("t", "trouble"),
                ("s", "sort"),
                ("f", "follow"),
                ("n", "next trouble"),
            ]),
            At::Overview => keys.extend([("/", "filter"), ("t", "trouble")]),
            At::Flow => keys.extend([("j/k", "scroll"), ("y", "copy"), ("e", "export")]),
            At::Drops | At::Hooks => keys.push(("e", "export")),
        }
        if model.playing.is_some() {
            keys.extend([
                ("Space", "stop/go"),
                (",.", "seek"),
                ("x", "next trouble"),
                ("+-", "speed"),
            ]);
        } else {
            keys.push(("p", "pause"));
        }
    }
    let ends = [("?", "help"), ("q", "quit")];
    let room = pen.columns().saturating_sub(15);
    let mut x = 0;
    for (key, does) in keys.into_iter().filter(|(key, _)| !key.is_empty()) {
        if usize::from(x) + width(key) + width(does) + 3 > room {
            continue;
        }
        x = pen.put(x, 0, key, theme.key());
        x = pen.put(x + 1, 0, does, Style::new()) + 2;
    }
    for (key, does) in ends {
        x = pen.put(x, 0, key, theme.key());
        x = pen.put(x + 1, 0, does, Style::new()) + 2;
    }
}

/// Flows by fate, those that went wrong first.
pub(super) fn fates_shown(model: &Model) -> Vec<Fate> {
    let all = &model.shown().all;
    WORST_FIRST
        .into_iter()
        .filter(|&fate| is_trouble(fate) || fate == Fate::Established || all.of(fate) > 0)
        .collect()
}
