//! What the screen shows, and where in it the user is.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;
use tracer_common::hook::Hook;

use super::{
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

/// The views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// What is going wrong, at a glance.
    #[default]
    Overview,
    /// All flows.
    Flows,
    /// One flow.
    Flow,
    /// Where packets are discarded.
    Drops,
    /// Where tracer looks.
    Hooks,
}

impl At {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Flows, Self::Flow, Self::Drops, Self::Hooks];

    /// Its name.
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

/// A place in a list, and the first one that is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The selected place.
    pub place: usize,
    /// The first place on the screen.
    pub top: usize,
}

impl Cursor {
    /// Keeps it inside the list, and the selected place on the screen.
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

/// What stands in the overview and can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A cause.
    Cause(Cause),
    /// A service.
    Service(Name),
}

/// What is shown while the screen stands still.
#[derive(Debug)]
pub struct Frozen {
    /// The counts.
    pub totals: Totals,
    /// The moment.
    pub now_ns: u64,
    /// How many flows were told of by then.
    pub flows: u64,
}

/// How wide texts of the table were at most so far, columns of the screen.
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
    /// What this column needs: its heading too, and the arrow behind that.
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

/// See the module.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that have nothing to do with each other"
)]
pub struct Model {
    /// How things look.
    pub theme: Theme,
    /// Columns and lines of the screen.
    pub size: (u16, u16),
    /// The view.
    pub at: At,
    /// Is the help shown, and from which line on?
    pub help: Option<usize>,
    /// The filter while it is being typed.
    pub typing: Option<String>,
    /// The filter.
    pub filter: String,
    /// Only what went wrong?
    pub only_trouble: bool,

    /// The flows.
    pub store: Store,
    /// Their texts.
    pub names: Names,
    /// Their counts.
    pub totals: Totals,
    /// How wide their texts are.
    pub widest: Widest,
    /// Their order.
    pub list: List,
    /// What is shown while the screen stands still.
    pub frozen: Option<Box<Frozen>>,

    /// The place in the list of flows, and the number of the row there.
    pub flows: Cursor,
    /// See `flows`.
    pub selected: Option<u64>,
    /// The flow that was selected before a recording was played anew.
    pub awaited: Option<u64>,
    /// Is the newest always selected?
    pub follows: bool,
    /// The place in the overview.
    pub overview: Cursor,
    /// The place among the drops.
    pub drops: Cursor,
    /// The place among the hooks.
    pub hook: Cursor,
    /// The flow that is looked at, and the first line of it on the screen.
    pub flow: Option<u64>,
    /// See `flow`.
    pub flow_top: usize,
    /// Flows that were left for an earlier one of the same port.
    pub trail: Vec<u64>,

    /// The host, its kernel, and how many ports are followed.
    pub host: String,
    /// See `host`.
    pub kernel: String,
    /// See `host`.
    pub ports: usize,
    /// What the command line chose to be shown, in the words of the filter; empty if everything.
    pub only: String,
    /// From the kernel's clock to that on the wall.
    pub clock: Option<Clock>,
    /// The hooks.
    pub hooks: Vec<HookState>,
    /// What they cost in the last second, once that is known.
    pub costs: Option<Costs>,
    /// Records in flows that were told of, by hook.
    pub seen: HashMap<Hook, u64>,
    /// Records lost, by hook.
    pub lost: BTreeMap<String, u64>,
    /// Records so far, and in the last second.
    pub records: u64,
    /// See `records`.
    pub rate: u64,
    /// The kernel's monotonic clock.
    pub now_ns: u64,
    /// What would have gone to stderr.
    pub said: VecDeque<String>,
    /// Something to be read once.
    pub notice: Option<String>,
    /// When tracer last said something there, monotonic nanoseconds.
    pub noticed_ns: u64,
    /// Was it asked to count anew? It must be asked twice.
    pub asks_clear: bool,
    /// How a recording is played.
    pub playing: Option<Playing>,
    /// There is no more to come.
    pub has_ended: bool,
    /// Is there anything that the last frame did not show?
    pub is_changed: bool,
}

impl Model {
    /// An empty one.
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

    /// The counts that are shown.
    #[must_use]
    pub fn shown(&self) -> &Totals {
        self.frozen.as_ref().map_or(&self.totals, |frozen| &frozen.totals)
    }

    /// The moment that is shown.
    #[must_use]
    pub fn shown_ns(&self) -> u64 {
        self.frozen.as_ref().map_or(self.now_ns, |frozen| frozen.now_ns)
    }

    /// A moment on the wall.
    #[must_use]
    pub fn wall(&self, ns: u64) -> Option<Timestamp> {
        self.clock.as_ref().map(|clock| clock.at(ns))
    }

    /// Records lost at all hooks.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.lost.values().fold(0, |sum, lost| sum.saturating_add(*lost))
    }

    /// Hooks in this state.
    #[must_use]
    pub fn count_hooks(&self, state: State) -> usize {
        self.hooks.iter().filter(|hook| hook.state == state).count()
    }

    /// What the overview lists: causes, then services.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let totals = self.shown();
        let causes = totals.causes().into_iter().map(|(cause, _)| Item::Cause(cause));
        let services = totals.services().into_iter().map(|(name, _)| Item::Service(name));
        causes.chain(services).collect()
    }

    /// The row that is selected in the list.
    #[must_use]
    pub fn selected_row(&self) -> Option<&Row> {
        self.store.row(self.selected?)
    }

    /// The row of the flow that is looked at.
    #[must_use]
    pub fn flow_row(&self) -> Option<&Row> {
        self.store.row(self.store.number(self.flow?)?)
    }

    /// The row of a flow.
    #[must_use]
    pub fn row_of(&self, id: u64) -> Option<&Row> {
        self.store.row(self.store.number(id)?)
    }

    /// Lines above the view: tabs, health, and the time line of a recording.
    #[must_use]
    pub fn head_lines(&self) -> u16 {
        2 + u16::from(self.playing.is_some())
    }

    /// Lines of the view.
    #[must_use]
    pub fn body_lines(&self) -> usize {
        usize::from(self.size.1.saturating_sub(self.head_lines() + 1))
    }

    /// Hooks, those that need looking at first.
    #[must_use]
    pub fn sorted_hooks(&self) -> Vec<&HookState> {
        let mut hooks: Vec<&HookState> = self.hooks.iter().collect();
        hooks.sort_by_key(|hook| hook.state);
        hooks
    }
}
