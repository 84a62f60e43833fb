//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::{clear, freeze, start_over};
use crate::{
    flow::fate::Fate,
    tui::{
        export, filter,
        keys::{self, Action, Place},
        list::Column,
        message::{Command, Play},
        model::{At, Cursor, Item, Model},
        totals,
    },
};

/// The longest filter.
const MOST_FILTER: usize = 200;
/// So many parts of a recording are gone forward or back at once.
const PARTS: u64 = 40;
/// So many flows are looked at for the next one that went wrong.
const MOST_LOOK: usize = 200_000;

/// A key was pressed.
pub(super) fn press(model: &mut Model, code: KeyCode, modifiers: KeyModifiers) -> Vec<Command> {
    model.notice = None;
    model.noticed_ns = model.now_ns;
    if model.typing.is_some() && type_filter(model, code, modifiers) {
        return Vec::new();
    }
    let is_playing = model.playing.is_some();
    let at = model.at;
    let action = keys::action(code, modifiers, |place| match place {
        Place::Everywhere | Place::Moving => true,
        Place::Flows => matches!(at, At::Flows | At::Overview),
        Place::Playing => is_playing,
    });
    let was_asked = std::mem::take(&mut model.asks_clear);
    let Some(action) = action else {
        return Vec::new();
    };
    if let Some(top) = model.help {
        return in_help(model, action, top);
    }
    if act_on_play(model, action).is_none() && !move_about(model, action) {
        return act(model, action, was_asked);
    }
    act_on_play(model, action).into_iter().collect()
}

/// Text was pasted: only a filter takes it.
pub(super) fn paste(model: &mut Model, text: &str) {
    if let Some(typing) = &mut model.typing {
        let room = MOST_FILTER.saturating_sub(typing.chars().count());
        typing.extend(text.chars().filter(|c| !c.is_control()).take(room));
        start_over(model);
    }
}

/// Types at the filter; gives whether the key was for it.
fn type_filter(model: &mut Model, code: KeyCode, modifiers: KeyModifiers) -> bool {
    let Some(typing) = &mut model.typing else {
        return false;
    };
    let has_control = modifiers.contains(KeyModifiers::CONTROL);
    match code {
        KeyCode::Enter => {
            model.filter = model.typing.take().unwrap_or_default();
            return true;
        }
        KeyCode::Esc => {
            model.typing = None;
            model.filter.clear();
        }
        KeyCode::Backspace if typing.is_empty() => model.typing = None,
        KeyCode::Backspace => {
            typing.pop();
        }
        KeyCode::Char('u') if has_control => typing.clear(),
        KeyCode::Char('w') if has_control => {
            let kept = typing.trim_end().rfind(' ').map_or(0, |at| at + 1);
            typing.truncate(kept);
        }
        KeyCode::Char(c) if !has_control => {
            if typing.chars().count() < MOST_FILTER && !c.is_control() {
                typing.push(c);
            }
        }
        // Ctrl with a letter, or moving about in what is found so far.
        KeyCode::Char(_) | KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown => return false,
        _ => return true,
    }
    start_over(model);
    true
}

fn in_help(model: &mut Model, action: Action, top: usize) -> Vec<Command> {
    let page = model.body_lines();
    model.help = match action {
        Action::Down => Some(top + 1),
        Action::Up => Some(top.saturating_sub(1)),
        Action::PageDown => Some(top + page),
        Action::PageUp => Some(top.saturating_sub(page)),
        Action::Top => Some(0),
        Action::Bottom => Some(usize::MAX / 2),
        Action::Suspend => return vec![Command::Suspend],
        Action::Redraw => return vec![Command::Redraw],
        Action::Help | Action::Back | Action::Open | Action::Quit => None,
        _ => Some(top),
    };
    Vec::new()
}

fn act_on_play(model: &Model, action: Action) -> Option<Command> {
    let playing = model.playing.as_ref()?;
    let whole = playing.end_ns.saturating_sub(playing.begin_ns);
    let part = whole / PARTS;
    Some(Command::Play(match action {
        Action::PlayToggle => Play::Toggle,
        Action::PlayForward => Play::Seek(playing.now_ns.saturating_add(part).min(playing.end_ns)),
        Action::PlayBack => Play::Seek(playing.now_ns.saturating_sub(part).max(playing.begin_ns)),
        Action::PlayBegin => Play::Seek(playing.begin_ns),
        Action::PlayFaster => Play::Speed(if playing.speed == 1 { 10 } else { 0 }),
        Action::PlaySlower => Play::Speed(if playing.speed == 0 { 10 } else { 1 }),
        Action::PlayTrouble => Play::NextTrouble,
        _ => return None,
    }))
}

/// Moves in what is shown; gives whether the key was for that.
fn move_about(model: &mut Model, action: Action) -> bool {
    let page = model.body_lines().saturating_sub(2).max(1);
    let moved = |place: usize, length: usize| {
        let last = length.saturating_sub(1);
        Some(match action {
            Action::Down => (place + 1).min(last),
            Action::Up => place.saturating_sub(1),
            Action::PageDown => (place + page).min(last),
            Action::PageUp => place.saturating_sub(page),
            Action::Top => 0,
            Action::Bottom => last,
            _ => return None,
        })
    };
    let step = |cursor: &mut Cursor, length| match moved(cursor.place, length) {
        Some(place) => {
            cursor.place = place;
            true
        }
        None => false,
    };
    match model.at {
        At::Overview => {
            let items = model.items().len();
            step(&mut model.overview, items)
        }
        At::Flows => {
            let Some(place) = moved(model.flows.place, model.list.len()) else {
                return false;
            };
            go_to(model, place);
            true
        }
        At::Flow => match moved(model.flow_top, usize::MAX / 2) {
            Some(top) => {
                model.flow_top = top;
                true
            }
            None => false,
        },
        At::Drops => {
            let drops = model.shown().drops().len();
            step(&mut model.drops, drops)
        }
        At::Hooks => step(&mut model.hook, model.hooks.len()),
    }
}

/// Selects the flow at a place of the list.
fn go_to(model: &mut Model, place: usize) {
    model.flows.place = place;
    model.selected = model.list.at(place);
    let newest = if model.list.is_descending {
        0
    } else {
        model.list.len().saturating_sub(1)
    };
    // Who leaves the newest wants to look at something.
    model.follows = model.follows && place == newest;
    let lines = model.body_lines().saturating_sub(1);
    model.flows.settle(model.list.len(), lines);
}

fn act(model: &mut Model, action: Action, was_asked: bool) -> Vec<Command> {
    match action {
        Action::Quit => return vec![Command::Quit],
        Action::Suspend => return vec![Command::Suspend],
        Action::Redraw => return vec![Command::Redraw],
        Action::Help => model.help = Some(0),
        Action::Back => back(model),
        Action::Open => open(model),
        Action::NextView => turn(model, 1),
        Action::PreviousView => turn(model, At::ALL.len() - 1),
        Action::View(view) => {
            if let Some(&at) = At::ALL.get(usize::from(view)) {
                show(model, at);
            }
        }
        Action::Filter => {
            model.at = At::Flows;
            let mut text = model.filter.clone();
            if !text.is_empty() && !text.ends_with(' ') {
                text.push(' ');
            }
            model.typing = Some(text);
        }
        Action::Sort => sort(model, model.list.column.next()),
        Action::Reverse => {
            model.at = At::Flows;
            model.list.is_descending = !model.list.is_descending;
            model.flows = Cursor::default();
            model.selected = model.list.at(0);
        }
        Action::Pause => freeze(model, model.frozen.is_none()),
        Action::Follow => {
            model.at = At::Flows;
            model.follows = !model.follows;
            if model.follows && model.list.column != Column::Time {
                sort(model, Column::Time);
                model.follows = true;
            }
        }
        Action::OnlyTrouble => {
            model.at = At::Flows;
            model.only_trouble = !model.only_trouble;
            start_over(model);
        }
        Action::NextTrouble => look_for_trouble(model, true),
        Action::PreviousTrouble => look_for_trouble(model, false),
        Action::Clear if was_asked => clear(model),
        Action::Clear => {
            model.asks_clear = true;
            model.notice = Some("forget all flows and count anew? press c again".to_owned());
        }
        Action::Export => return export::command(model).into_iter().collect(),
        Action::Copy => match export::copy(model) {
            Some(text) => {
                model.notice = Some("sent to the terminal's clipboard".to_owned());
                return vec![Command::Copy(text)];
            }
            None => model.notice = Some("no flow is selected".to_owned()),
        },
        _ => {}
    }
    Vec::new()
}

fn sort(model: &mut Model, column: Column) {
    model.at = At::Flows;
    model.list.column = column;
    model.list.is_descending = column.is_descending();
    // The newest is where it is only in the order of time.
    model.follows = model.follows && column == Column::Time;
    model.selected = None;
    start_over(model);
}

fn turn(model: &mut Model, by: usize) {
    let place = At::ALL.iter().position(|&at| at == model.at).unwrap_or(0);
    show(model, At::ALL[(place + by) % At::ALL.len()]);
}

fn show(model: &mut Model, at: At) {
    if at == At::Flow && model.flow.is_none() {
        model.flow = model.selected_row().map(|row| row.id);
        model.flow_top = 0;
    }
    model.at = at;
}

fn back(model: &mut Model) {
    match model.at {
        At::Flow => match model.trail.pop() {
            Some(id) => {
                model.flow = Some(id);
                model.flow_top = 0;
            }
            None => model.at = At::Flows,
        },
        At::Flows if !model.filter.is_empty() || model.only_trouble => {
            model.filter.clear();
            model.only_trouble = false;
            start_over(model);
        }
        _ => model.at = At::Overview,
    }
}

fn open(model: &mut Model) {
    match model.at {
        At::Overview => match model.items().get(model.overview.place) {
            Some(Item::Cause(cause)) => filter_by(model, format!("cause:{cause}")),
            Some(Item::Service(name)) => {
                let text = model.names.text(*name);
                let text = text
                    .strip_prefix("port ")
                    .map_or_else(|| format!("service:{text}"), |port| format!("port:{port}"));
                filter_by(model, text);
            }
            None => model.at = At::Flows,
        },
        At::Flows => {
            if let Some(row) = model.selected_row() {
                model.flow = Some(row.id);
                model.flow_top = 0;
                model.trail.clear();
                model.at = At::Flow;
                model.follows = false;
            }
        }
        // The flow before it from the same port: reuse is a story of two.
        At::Flow => {
            let earlier = model.flow_row().map(|row| row.earlier).filter(|&id| id != 0);
            if let (Some(id), Some(earlier)) = (model.flow, earlier) {
                model.trail.push(id);
                model.flow = Some(earlier);
                model.flow_top = 0;
            }
        }
        At::Drops => {
            let drops = model.shown().drops();
            if let Some((name, _)) = drops.get(model.drops.place) {
                let site = filter::site(model.names.text(*name));
                filter_by(model, format!("drop:{site}"));
            }
        }
        At::Hooks => {}
    }
}

fn filter_by(model: &mut Model, filter: String) {
    model.filter = filter;
    model.at = At::Flows;
    model.follows = true;
    if model.list.column == Column::Time {
        start_over(model);
    } else {
        sort(model, Column::Time);
        model.follows = true;
    }
}

fn look_for_trouble(model: &mut Model, down: bool) {
    model.at = At::Flows;
    let mut place = model.flows.place;
    for _ in 0..MOST_LOOK {
        let next = if down {
            place.checked_add(1)
        } else {
            place.checked_sub(1)
        };
        let Some(number) = next.and_then(|next| model.list.at(next)) else {
            break;
        };
        place = next.unwrap_or(place);
        let fate = model.store.row(number).map(|row| row.fate);
        if fate.is_some_and(|fate| totals::rank(fate) < totals::rank(Fate::Pending)) {
            go_to(model, place);
            model.follows = false;
            return;
        }
    }
    model.notice = Some("no other flow went wrong in this direction".to_owned());
}

/// Selects the flow that was looked for; where the filter hides it, it is shown by itself.
pub(super) fn found(model: &mut Model, id: u64) {
    model.follows = false;
    model.selected = model.store.number(id);
    model.flow = Some(id);
    model.flow_top = 0;
    model.trail.clear();
    model.at = At::Flow;
}
