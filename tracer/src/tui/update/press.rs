//! Applies keys to the model.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use crate::tui::{
    export, filter,
    keys::{self, Action, Scope},
    list::Column,
    message::{Command, Play},
    model::{Cursor, Item, Model, Tab},
    row::Row,
};

/// The longest filter, in characters.
const MAX_FILTER: usize = 200;
/// `.` and `,` seek by one of this many parts of the recording.
const PARTS: u64 = 40;
/// The most flows searched for the next failure.
const MAX_SEARCHED: usize = 200_000;

/// Applies a key.
pub(super) fn press(model: &mut Model, code: KeyCode, modifiers: KeyModifiers) -> Vec<Command> {
    model.notice = None;
    model.notice_ns = model.now_ns;
    if model.typing.is_some() && type_filter(model, code, modifiers) {
        return Vec::new();
    }
    let is_playing = model.playing.is_some();
    let tab = model.tab;
    let action = keys::action(code, modifiers, |scope| match scope {
        Scope::Everywhere | Scope::Navigation => true,
        Scope::Flows => matches!(tab, Tab::Flows | Tab::Overview),
        Scope::Playback => is_playing,
    });
    let is_confirmed = std::mem::take(&mut model.confirms_reset);
    let Some(action) = action else {
        return Vec::new();
    };
    if let Some(top) = model.help {
        return in_help(model, action, top);
    }
    if act_on_play(model, action).is_none() && !move_cursor(model, action) {
        return act(model, action, is_confirmed);
    }
    act_on_play(model, action).into_iter().collect()
}

/// Applies pasted text: only the filter accepts it.
pub(super) fn paste(model: &mut Model, text: &str) {
    if let Some(typing) = &mut model.typing {
        let room = MAX_FILTER.saturating_sub(typing.chars().count());
        typing.extend(text.chars().filter(|c| !c.is_control()).take(room));
        model.rebuild_list();
    }
}

/// Edits the filter; returns whether the key was meant for it.
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
            if typing.chars().count() < MAX_FILTER && !c.is_control() {
                typing.push(c);
            }
        }
        // Shortcuts, and moving in the flows found so far.
        KeyCode::Char(_) | KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown => return false,
        _ => return true,
    }
    model.rebuild_list();
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
        Action::PlayToFailure => Play::NextFailure,
        _ => return None,
    }))
}

/// Moves the cursor of the open tab; returns whether the key was meant for it.
fn move_cursor(model: &mut Model, action: Action) -> bool {
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
    match model.tab {
        Tab::Overview => {
            let items = model.items().len();
            step(&mut model.overview, items)
        }
        Tab::Flows => {
            let Some(place) = moved(model.flows.place, model.list.len()) else {
                return false;
            };
            go_to(model, place);
            true
        }
        Tab::Flow => match moved(model.flow_top, usize::MAX / 2) {
            Some(top) => {
                model.flow_top = top;
                true
            }
            None => false,
        },
        Tab::Drops => {
            let drops = model.shown().drops().len();
            step(&mut model.drops, drops)
        }
        Tab::Hooks => step(&mut model.hook, model.hooks.len()),
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
    // Moving away from the newest flow stops following.
    model.follows = model.follows && place == newest;
    let lines = model.body_lines().saturating_sub(1);
    model.flows.settle(model.list.len(), lines);
}

fn act(model: &mut Model, action: Action, is_confirmed: bool) -> Vec<Command> {
    match action {
        Action::Quit => return vec![Command::Quit],
        Action::Suspend => return vec![Command::Suspend],
        Action::Redraw => return vec![Command::Redraw],
        Action::Help => model.help = Some(0),
        Action::Back => back(model),
        Action::Open => open(model),
        Action::NextTab => turn(model, 1),
        Action::PreviousTab => turn(model, Tab::ALL.len() - 1),
        Action::Tab(index) => {
            if let Some(&tab) = Tab::ALL.get(usize::from(index)) {
                show(model, tab);
            }
        }
        Action::Filter => {
            model.tab = Tab::Flows;
            let mut text = model.filter.clone();
            if !text.is_empty() && !text.ends_with(' ') {
                text.push(' ');
            }
            model.typing = Some(text);
        }
        Action::Sort => sort(model, model.list.column.next()),
        Action::Reverse => {
            model.tab = Tab::Flows;
            model.list.is_descending = !model.list.is_descending;
            model.flows = Cursor::default();
            model.selected = model.list.at(0);
        }
        Action::Freeze => model.set_frozen(model.frozen.is_none()),
        Action::Follow => {
            model.tab = Tab::Flows;
            model.follows = !model.follows;
            if model.follows && model.list.column != Column::Time {
                sort(model, Column::Time);
                model.follows = true;
            }
        }
        Action::OnlyFailures => {
            model.tab = Tab::Flows;
            model.only_failures = !model.only_failures;
            model.rebuild_list();
        }
        Action::NextFailure => select_failure(model, true),
        Action::PreviousFailure => select_failure(model, false),
        Action::Reset if is_confirmed => model.reset(),
        Action::Reset => {
            model.confirms_reset = true;
            model.notice = Some("reset counters and forget all flows? press c again".to_owned());
        }
        Action::Export => return export::command(model).into_iter().collect(),
        Action::Copy => match export::copy(model) {
            Some(text) => {
                model.notice = Some("copied to the terminal's clipboard".to_owned());
                return vec![Command::Copy(text)];
            }
            None => model.notice = Some("no flow selected".to_owned()),
        },
        _ => {}
    }
    Vec::new()
}

fn sort(model: &mut Model, column: Column) {
    model.tab = Tab::Flows;
    model.list.column = column;
    model.list.is_descending = column.is_descending();
    // Only a list sorted by time has a newest end.
    model.follows = model.follows && column == Column::Time;
    model.selected = None;
    model.rebuild_list();
}

fn turn(model: &mut Model, by: usize) {
    let place = Tab::ALL.iter().position(|&tab| tab == model.tab).unwrap_or(0);
    show(model, Tab::ALL[(place + by) % Tab::ALL.len()]);
}

fn show(model: &mut Model, tab: Tab) {
    if tab == Tab::Flow && model.flow.is_none() {
        model.flow = model.selected_row().map(|row| row.id);
        model.flow_top = 0;
    }
    model.tab = tab;
}

fn back(model: &mut Model) {
    match model.tab {
        Tab::Flow => match model.trail.pop() {
            Some(id) => {
                model.flow = Some(id);
                model.flow_top = 0;
            }
            None => model.tab = Tab::Flows,
        },
        Tab::Flows if !model.filter.is_empty() || model.only_failures => {
            model.filter.clear();
            model.only_failures = false;
            model.rebuild_list();
        }
        _ => model.tab = Tab::Overview,
    }
}

fn open(model: &mut Model) {
    match model.tab {
        Tab::Overview => match model.items().get(model.overview.place) {
            Some(Item::Cause(cause)) => filter_by(model, format!("cause:{cause}")),
            Some(Item::Service(name)) => {
                let text = model.names.text(*name);
                let text = text
                    .strip_prefix("port ")
                    .map_or_else(|| format!("service:{text}"), |port| format!("port:{port}"));
                filter_by(model, text);
            }
            None => model.tab = Tab::Flows,
        },
        Tab::Flows => {
            if let Some(row) = model.selected_row() {
                model.flow = Some(row.id);
                model.flow_top = 0;
                model.trail.clear();
                model.tab = Tab::Flow;
                model.follows = false;
            }
        }
        // The earlier flow from the same port: port reuse involves two flows.
        Tab::Flow => {
            let earlier = model.flow_row().map(|row| row.earlier).filter(|&id| id != 0);
            if let (Some(id), Some(earlier)) = (model.flow, earlier) {
                model.trail.push(id);
                model.flow = Some(earlier);
                model.flow_top = 0;
            }
        }
        Tab::Drops => {
            let drops = model.shown().drops();
            if let Some((name, _)) = drops.get(model.drops.place) {
                let site = filter::site(model.names.text(*name));
                filter_by(model, format!("drop:{site}"));
            }
        }
        Tab::Hooks => {}
    }
}

fn filter_by(model: &mut Model, filter: String) {
    model.filter = filter;
    model.tab = Tab::Flows;
    model.follows = true;
    if model.list.column == Column::Time {
        model.rebuild_list();
    } else {
        sort(model, Column::Time);
        model.follows = true;
    }
}

fn select_failure(model: &mut Model, down: bool) {
    model.tab = Tab::Flows;
    let mut place = model.flows.place;
    for _ in 0..MAX_SEARCHED {
        let next = if down {
            place.checked_add(1)
        } else {
            place.checked_sub(1)
        };
        let Some(number) = next.and_then(|next| model.list.at(next)) else {
            break;
        };
        place = next.unwrap_or(place);
        if model.store.row(number).is_some_and(Row::is_failure) {
            go_to(model, place);
            model.follows = false;
            return;
        }
    }
    model.notice = Some("no more failures in this direction".to_owned());
}

/// Opens the failure that playback searched for, even if the filter hides it.
pub(super) fn found(model: &mut Model, id: u64) {
    model.follows = false;
    model.selected = model.store.number(id);
    model.flow = Some(id);
    model.flow_top = 0;
    model.trail.clear();
    model.tab = Tab::Flow;
}
