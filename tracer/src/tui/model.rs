//! The data that the screen shows, and the user's position in it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;
use tracer_common::hook::Hook;

use super::{
    filter::Filter,
    list::{Column, List},
    message::Playing,
    names::{Name, Names},
    row::Row,
    store::Store,
    theme::Theme,
    totals::Totals,
};
use crate::{
    diagnose::cause::Cause,
    finding::{
        clock::Clock,
        costs::Costs,
        hook_state::{HookState, State},
    },
};

/// A tab of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Outcomes, causes and services at a glance.
    #[default]
    Overview,
    /// The list of flows.
    Flows,
    /// One flow.
    Flow,
    /// The places where packets are dropped.
    Drops,
    /// The hooks and their state.
    Hooks,
}

impl Tab {
    /// Every tab, in the order of the screen.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Flows, Self::Flow, Self::Drops, Self::Hooks];

    /// The title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Flows => "Flows",
            Self::Flow => "Flow",
            Self::Drops => "Drops",
            Self::Hooks => "Hooks",
        }
    }
}

/// The selected place in a list, and the first one on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The selected place.
    pub place: usize,
    /// The first place on the screen.
    pub top: usize,
}

impl Cursor {
    /// Keeps the selected place inside the list and on the screen.
    pub fn settle(&mut self, length: usize, height: usize) {
        let height = height.max(1);
        self.place = self.place.min(length.saturating_sub(1));
        self.top = self.top.min(length.saturating_sub(height));
        if self.place < self.top {
            self.top = self.place;
        } else if self.place >= self.top + height {
            self.top = self.place + 1 - height;
        }
    }
}

/// A line of the overview that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A cause of failures.
    Cause(Cause),
    /// A service, or a port without a service name.
    Service(Name),
}

/// The data shown while the screen is frozen.
#[derive(Debug)]
pub struct Frozen {
    /// The totals at that moment.
    pub totals: Totals,
    /// The time at which it was frozen, monotonic nanoseconds.
    pub now_ns: u64,
    /// The number of flows reported by then.
    pub flows: u64,
}

/// The widest texts of the flow table so far, in columns of the screen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Widest {
    /// The clients' addresses.
    pub client: u16,
    /// Services and NodePorts.
    pub service: u16,
    /// The backends' addresses.
    pub backend: u16,
}

impl Widest {
    /// The width of a column: its widest text, or its heading with the sort arrow.
    #[must_use]
    pub fn of(self, column: Column) -> u16 {
        let text = match column {
            Column::Client => self.client,
            Column::Service => self.service,
            Column::Backend => self.backend,
            _ => return u16::MAX,
        };
        text.max(u16::try_from(column.title().len()).unwrap_or_default() + 1)
    }
}

/// The state of the screen.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Model {
    /// Colours and symbols.
    pub theme: Theme,
    /// Columns and lines of the screen.
    pub size: (u16, u16),
    /// The open tab.
    pub tab: Tab,
    /// The first line of the help on the screen, while it is open.
    pub help: Option<usize>,
    /// The filter while it is edited.
    pub typing: Option<String>,
    /// The filter in effect.
    pub filter: String,
    /// Whether only failures are listed.
    pub only_failures: bool,

    /// The damage to the recording.
    pub damage: Option<String>,

    /// The flows that are kept.
    pub store: Store,
    /// Their texts.
    pub names: Names,
    /// Totals over all flows, kept or not.
    pub totals: Totals,
    /// The widths of the flow table.
    pub widest: Widest,
    /// The flows that are listed, in order.
    pub list: List,
    /// The data shown while the screen is frozen.
    pub frozen: Option<Box<Frozen>>,

    /// The place in the list of flows, and the number of the row there.
    pub flows: Cursor,
    /// See `flows`.
    pub selected: Option<u64>,
    /// The flow to select again once a rewound recording reaches it.
    pub reselect: Option<u64>,
    /// Whether the newest flow is always selected.
    pub follows: bool,
    /// The place in the overview.
    pub overview: Cursor,
    /// The place in the list of drops.
    pub drops: Cursor,
    /// The place in the list of hooks.
    pub hook: Cursor,
    /// The open flow, and its first line on the screen.
    pub flow: Option<u64>,
    /// See `flow`.
    pub flow_top: usize,
    /// The flows from which the user went on to an earlier flow of the same port.
    pub trail: Vec<u64>,

    /// The host, its kernel, and how many ports are traced.
    pub host: String,
    /// See `host`.
    pub kernel: String,
    /// See `host`.
    pub ports: usize,
    /// The command line's selection, in the words of the filter; empty if everything is shown.
    pub selection: String,
    /// Turns the kernel's monotonic time into wall-clock time.
    pub clock: Option<Clock>,
    /// Each hook and its state.
    pub hooks: Vec<HookState>,
    /// What is in force for the tracing process, in one line; empty if that is not known.
    pub sandbox: String,
    /// Their CPU time in the last second, once known.
    pub costs: Option<Costs>,
    /// Records of decided flows, by hook.
    pub seen: HashMap<Hook, u64>,
    /// Records lost, by hook.
    pub lost: BTreeMap<String, u64>,
    /// Flows evicted from memory before their time.
    pub evicted: u64,
    /// Records so far, and in the last second.
    pub records: u64,
    /// See `records`.
    pub rate: u64,
    /// The kernel's monotonic clock, nanoseconds.
    pub now_ns: u64,
    /// Lines for stderr, printed once the terminal is released.
    pub log: VecDeque<String>,
    /// A line shown in place of the keys.
    pub notice: Option<String>,
    /// Time at which it was first shown, monotonic nanoseconds.
    pub notice_ns: u64,
    /// Whether the reset key was pressed once. The second time confirms.
    pub confirms_reset: bool,
    /// The state of playback; `None` while tracing live.
    pub playing: Option<Playing>,
    /// Whether tracing has ended.
    pub has_ended: bool,
    /// Whether anything has changed since the last frame.
    pub is_changed: bool,
}

impl Model {
    /// A model without flows.
    #[must_use]
    pub fn new(theme: Theme, size: (u16, u16)) -> Self {
        let mut model = Self {
            theme,
            size,
            follows: true,
            is_changed: true,
            ..Self::default()
        };
        model.list.is_descending = model.list.column.is_descending();
        model
    }

    /// The totals to show: frozen or current.
    #[must_use]
    pub fn shown(&self) -> &Totals {
        self.frozen.as_ref().map_or(&self.totals, |frozen| &frozen.totals)
    }

    /// The time to show, frozen or current; monotonic nanoseconds.
    #[must_use]
    pub fn shown_ns(&self) -> u64 {
        self.frozen.as_ref().map_or(self.now_ns, |frozen| frozen.now_ns)
    }

    /// The wall-clock time of a monotonic reading.
    #[must_use]
    pub fn wall(&self, ns: u64) -> Option<Timestamp> {
        self.clock.as_ref().map(|clock| clock.at(ns))
    }

    /// Lost records, all hooks together.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.lost.values().fold(0, |sum, lost| sum.saturating_add(*lost))
    }

    /// The first line of the Hooks tab with a hook: the heading and what is known of the sandbox are above.
    #[must_use]
    pub fn hooks_begin(&self) -> u16 {
        if self.sandbox.is_empty() { 1 } else { 2 }
    }

    /// The number of hooks in this state.
    #[must_use]
    pub fn count_hooks(&self, state: State) -> usize {
        self.hooks.iter().filter(|hook| hook.state == state).count()
    }

    /// The lines of the overview that can be opened: causes, then services.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let totals = self.shown();
        let causes = totals.causes().into_iter().map(|(cause, _)| Item::Cause(cause));
        let services = totals.services().into_iter().map(|(name, _)| Item::Service(name));
        causes.chain(services).collect()
    }

    /// The row selected in the list of flows.
    #[must_use]
    pub fn selected_row(&self) -> Option<&Row> {
        self.store.row(self.selected?)
    }

    /// The row of the open flow.
    #[must_use]
    pub fn flow_row(&self) -> Option<&Row> {
        self.store.row(self.store.number(self.flow?)?)
    }

    /// The row of a flow.
    #[must_use]
    pub fn row_of(&self, id: u64) -> Option<&Row> {
        self.store.row(self.store.number(id)?)
    }

    /// Lines above the tab: titles, status, and the timeline of a recording.
    #[must_use]
    pub fn head_lines(&self) -> u16 {
        2 + u16::from(self.playing.is_some())
    }

    /// Lines of the tab.
    #[must_use]
    pub fn body_lines(&self) -> usize {
        usize::from(self.size.1.saturating_sub(self.head_lines() + 1))
    }

    /// The hooks, disabled ones first.
    #[must_use]
    pub fn sorted_hooks(&self) -> Vec<&HookState> {
        let mut hooks: Vec<&HookState> = self.hooks.iter().collect();
        hooks.sort_by_key(|hook| hook.state);
        hooks
    }

    /// Rebuilds the list of flows after a change of order or filter.
    pub fn rebuild_list(&mut self) {
        let text = self.typing.as_ref().unwrap_or(&self.filter);
        let filter = Filter::parse(text, self.only_failures);
        self.list.rebuild(Some(filter), &self.store);
        self.flows = Cursor::default();
    }

    /// Freezes or unfreezes the screen.
    pub fn set_frozen(&mut self, is_frozen: bool) {
        self.store.freeze(is_frozen);
        self.frozen = is_frozen.then(|| {
            Box::new(Frozen {
                totals: self.totals.clone(),
                now_ns: self.now_ns,
                flows: self.totals.all.flows(),
            })
        });
    }

    /// Forgets all flows and resets the counters.
    pub fn reset(&mut self) {
        self.store.clear();
        self.totals = Totals::default();
        self.seen.clear();
        self.records = 0;
        self.list.rebuild(None, &self.store);
        if let Some(frozen) = &mut self.frozen {
            frozen.totals = Totals::default();
        }
        (self.selected, self.reselect) = (None, None);
        self.confirms_reset = false;
    }
}
