//! How the model changes: one message after the other.

mod press;

use super::{
    filter::Filter,
    message::{Command, Msg},
    model::{At, Frozen, Model, Widest},
    row::{Row, Told},
    store::{Put, Store},
    text::{clean, width},
    totals::Totals,
    view::{detail, help},
};
use crate::finding::hook_state::{HookState, State};

/// What tracer says stands for so long where the keys are named.
const NOTICE_NS: u64 = 6_000_000_000;
/// So many lines of what would have gone to stderr are kept.
const MOST_SAID: usize = 50;

/// Takes in a message.
pub fn update(model: &mut Model, message: Msg) -> Vec<Command> {
    match message {
        Msg::Key(code, modifiers) => {
            // Who types faster than frames come means what the keys before have led to.
            if model.list.left() > 0 || model.selected.is_none() {
                frame(model);
            }
            model.is_changed = true;
            return press::press(model, code, modifiers);
        }
        Msg::Frame => {
            frame(model);
            return Vec::new();
        }
        Msg::Flow(told) => flow(model, *told),
        Msg::Now(now_ns) => {
            // The screen shows seconds.
            let is_new = now_ns / 1_000_000_000 != model.now_ns / 1_000_000_000;
            model.now_ns = now_ns;
            // The keys stand in its place.
            if model.playing.is_none() && now_ns.saturating_sub(model.noticed_ns) > NOTICE_NS {
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
            only,
            hooks,
            clock,
        } => {
            (model.host, model.kernel, model.ports, model.hooks) = (host, kernel, ports, hooks);
            model.only = only;
            model.clock = Some(clock);
        }
        Msg::Hooks { why, hooks } => {
            change_hooks(&mut model.hooks, hooks);
            let attached = model.count_hooks(State::Attached);
            if model.playing.is_none() {
                say(model, format!("{why}: {attached} hooks attached"));
            }
        }
        Msg::Lost(by_hook) => model.lost = by_hook.into_iter().collect(),
        Msg::Records(records) => {
            model.rate = records.saturating_sub(model.records);
            model.records = records;
        }
        Msg::Costs(costs) => model.costs = Some(costs),
        Msg::Said(line) => say(model, line),
        Msg::Notice(line) => {
            model.notice = Some(line);
            model.noticed_ns = model.now_ns;
        }
        Msg::Ended => model.has_ended = true,
        Msg::Playing(playing) => {
            if model.playing.as_ref() == Some(&playing) {
                return Vec::new();
            }
            model.playing = Some(playing);
        }
        Msg::Rewound => {
            // It is selected again once it comes again.
            let awaited = model.selected_row().map(|row| row.id).or(model.awaited);
            clear(model);
            model.awaited = awaited;
        }
        Msg::Found(id) => press::found(model, id),
        Msg::Pasted(text) => press::paste(model, &text),
        Msg::Size(columns, lines) => model.size = (columns, lines),
    }
    model.is_changed = true;
    Vec::new()
}

fn say(model: &mut Model, line: String) {
    model.notice = Some(line.clone());
    model.noticed_ns = model.now_ns;
    model.said.push_back(line);
    if model.said.len() > MOST_SAID {
        model.said.pop_front();
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

fn flow(model: &mut Model, told: Told) {
    for hook in &told.hooks {
        *model.seen.entry(*hook).or_default() += 1;
    }
    let row = Row::of(&told, &mut model.names);
    widen(model, &row);
    let before = model
        .store
        .number(row.id)
        .and_then(|number| model.store.now(number))
        .copied();
    if let Some(before) = &before {
        model.totals.take(before);
    }
    model.totals.add(&row);
    let Put { number, .. } = model.store.put(row, told.story);
    if model.awaited == Some(row.id) {
        model.awaited = None;
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

/// Forgets all flows.
fn clear(model: &mut Model) {
    model.store.clear();
    model.totals = Totals::default();
    model.seen.clear();
    model.records = 0;
    model.list.start_over(None, &model.store);
    if let Some(frozen) = &mut model.frozen {
        frozen.totals = Totals::default();
    }
    (model.selected, model.awaited) = (None, None);
    model.asks_clear = false;
}

/// The screen stands still, or goes on.
fn freeze(model: &mut Model, is_frozen: bool) {
    model.store.freeze(is_frozen);
    model.frozen = is_frozen.then(|| {
        Box::new(Frozen {
            totals: model.totals.clone(),
            now_ns: model.now_ns,
            flows: model.totals.all.flows(),
        })
    });
}

/// Looks at the flows anew, after order or filter changed.
fn start_over(model: &mut Model) {
    let filter = Filter::parse(model.typing.as_ref().unwrap_or(&model.filter), model.only_trouble);
    let store: &Store = &model.store;
    model.list.start_over(Some(filter), store);
    model.flows.top = 0;
    model.flows.place = 0;
}

/// Makes everything ready to be drawn.
fn frame(model: &mut Model) {
    if model.at != At::Hooks {
        // They are asked for only there: what was known would be old when the user comes back.
        model.costs = None;
    }
    // A list that is being gone through is shown, even if the rest stands still.
    if model.frozen.is_none() || model.list.left() > 0 {
        model.list.refresh(&model.store, &model.names);
    }
    model.is_changed = model.list.left() > 0;
    settle_flows(model);
    let body = model.body_lines();
    let items = model.items().len();
    model.overview.settle(items, items.max(1));
    model
        .drops
        .settle(model.shown().drops().len(), body.saturating_sub(1));
    model.hook.settle(model.hooks.len(), body.saturating_sub(1));
    if model.at == At::Flow {
        let lines = detail::lines(model, usize::from(model.size.0)).len();
        model.flow_top = model.flow_top.min(lines.saturating_sub(body));
    }
    if let Some(top) = &mut model.help {
        *top = (*top).min(
            help::lines(model.theme, model.playing.is_some())
                .len()
                .saturating_sub(body),
        );
    }
}

/// The selected flow stays selected wherever it goes, and stays where it is on the screen.
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
