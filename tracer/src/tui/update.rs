//! Applies messages to the model.

mod press;

use super::{
    flow_update::FlowUpdate,
    message::{Command, Msg},
    model::{Model, Tab, Widest},
    row::Row,
    text::{clean, quantity, width},
    view::{detail, help},
};
use crate::finding::hook_state::{HookState, State};

/// The time that a notice stays in place of the keys.
const NOTICE_NS: u64 = 6_000_000_000;
/// The most lines for stderr kept.
const MAX_LOG: usize = 50;

/// Applies a message; keys may return commands.
pub fn update(model: &mut Model, message: Msg) -> Vec<Command> {
    match message {
        Msg::Key(code, modifiers) => {
            // A key typed faster than frames are drawn is meant for the result of the keys before it.
            if model.list.unscanned() > 0 || model.selected.is_none() {
                frame(model);
            }
            model.is_changed = true;
            return press::press(model, code, modifiers);
        }
        Msg::Frame => {
            frame(model);
            return Vec::new();
        }
        Msg::Flow(flow) => put_flow(model, *flow),
        Msg::Now(now_ns) => {
            // The screen shows whole seconds.
            let is_new = now_ns / 1_000_000_000 != model.now_ns / 1_000_000_000;
            model.now_ns = now_ns;
            // During playback a notice stays until the next key.
            if model.playing.is_none() && now_ns.saturating_sub(model.notice_ns) > NOTICE_NS {
                model.notice = None;
            }
            if !is_new {
                return Vec::new();
            }
        }
        Msg::Start {
            host,
            kernel,
            ports,
            selection,
            hooks,
            sandbox,
            clock,
        } => {
            model.sandbox = sandbox;
            (model.host, model.kernel, model.ports, model.hooks) = (host, kernel, ports, hooks);
            model.selection = selection;
            model.clock = Some(clock);
        }
        Msg::Hooks { why, hooks } => {
            change_hooks(&mut model.hooks, hooks);
            let attached = model.count_hooks(State::Attached);
            if model.playing.is_none() {
                log(
                    model,
                    format!(
                        "{why}: {}",
                        quantity(attached as u64, "hook attached", "hooks attached")
                    ),
                );
            }
        }
        Msg::Lost(by_hook, evicted) => {
            model.lost = by_hook.into_iter().collect();
            model.evicted = evicted;
        }
        Msg::Records(records) => {
            model.rate = records.saturating_sub(model.records);
            model.records = records;
        }
        Msg::Costs(costs) => model.costs = Some(costs),
        Msg::Log(line) => log(model, line),
        Msg::Notice(line) => {
            model.notice = Some(line);
            model.notice_ns = model.now_ns;
        }
        Msg::Damage(what) => model.damage = Some(what),
        Msg::Ended => model.has_ended = true,
        Msg::Playing(playing) => {
            if model.playing.as_ref() == Some(&playing) {
                return Vec::new();
            }
            model.playing = Some(playing);
        }
        Msg::Rewound => {
            let reselect = model.selected_row().map(|row| row.id).or(model.reselect);
            model.reset();
            model.reselect = reselect;
        }
        Msg::Found(id) => press::found(model, id),
        Msg::Pasted(text) => press::paste(model, &text),
        Msg::Size(columns, lines) => model.size = (columns, lines),
    }
    model.is_changed = true;
    Vec::new()
}

fn log(model: &mut Model, line: String) {
    model.notice = Some(line.clone());
    model.notice_ns = model.now_ns;
    model.log.push_back(line);
    if model.log.len() > MAX_LOG {
        model.log.pop_front();
    }
}

fn change_hooks(hooks: &mut Vec<HookState>, changed: Vec<HookState>) {
    for change in changed {
        match hooks.iter_mut().find(|hook| hook.name == change.name) {
            Some(hook) => *hook = change,
            None => hooks.push(change),
        }
    }
}

fn put_flow(model: &mut Model, flow: FlowUpdate) {
    for hook in &flow.hooks {
        *model.seen.entry(*hook).or_default() += 1;
    }
    let row = Row::of(&flow, &mut model.names);
    widen(model, &row);
    let before = model
        .store
        .number(row.id)
        .and_then(|number| model.store.now(number))
        .copied();
    if let Some(before) = &before {
        model.totals.remove(before);
    }
    model.totals.add(&row);
    let number = model.store.put(row, flow.detail);
    if model.reselect == Some(row.id) {
        model.reselect = None;
        model.selected = Some(number);
    }
    model.list.put(number, before.as_ref(), &row, &model.names);
    if model.store.forget() {
        model.list.forget(model.store.numbers().start);
    }
}

fn widen(model: &mut Model, row: &Row) {
    let names = &model.names;
    let Widest {
        client,
        service,
        backend,
    } = &mut model.widest;
    for (widest, text) in [
        (client, row.client().to_string().as_str()),
        (service, names.text(row.service)),
        (backend, names.text(row.backend)),
    ] {
        *widest = (*widest).max(u16::try_from(width(&clean(text))).unwrap_or(u16::MAX));
    }
}

/// Prepares the model for drawing.
fn frame(model: &mut Model) {
    if model.tab != Tab::Hooks {
        // Costs are only collected while that tab is open, and would be stale when the user comes back.
        model.costs = None;
    }
    // A list that is being rebuilt is completed even while the screen is frozen.
    if model.frozen.is_none() || model.list.unscanned() > 0 {
        model.list.refresh(&model.store, &model.names);
    }
    model.is_changed = model.list.unscanned() > 0;
    settle_flows(model);
    let body = model.body_lines();
    let items = model.items().len();
    model.overview.settle(items, items.max(1));
    model
        .drops
        .settle(model.shown().drops().len(), body.saturating_sub(1));
    model.hook.settle(
        model.hooks.len(),
        body.saturating_sub(usize::from(model.hooks_begin())),
    );
    if model.tab == Tab::Flow {
        let lines = detail::lines(model, usize::from(model.size.0)).len();
        model.flow_top = model.flow_top.min(lines.saturating_sub(body));
    }
    if let Some(top) = &mut model.help {
        *top = (*top).min(
            help::lines(model.theme, model.playing.is_some(), usize::from(model.size.0))
                .len()
                .saturating_sub(body),
        );
    }
}

/// Keeps the selected flow selected and at the same line of the screen.
fn settle_flows(model: &mut Model) {
    let lines = model.body_lines().saturating_sub(1);
    let on_screen = model.flows.place.saturating_sub(model.flows.top);
    if model.follows {
        model.flows.place = if model.list.is_descending {
            0
        } else {
            model.list.len().saturating_sub(1)
        };
        model.flows.top = model.flows.place.saturating_sub(lines);
    } else if let Some(number) = model.selected
        && let Some(row) = model.store.now(number)
        && let Ok(place) = model.list.place(number, row, &model.names)
    {
        model.flows.place = place;
        model.flows.top = place.saturating_sub(on_screen);
    }
    model.flows.settle(model.list.len(), lines);
    model.selected = model.list.at(model.flows.place);
}
