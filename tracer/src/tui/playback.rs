//! A recording on the screen: played at any speed, with a timeline to scrub on.
//!
//! A recording can only be read forwards. To go back, it is read again from the start, as fast as possible, up to the
//! position that the user chose ([`Player::rewind`]).

pub mod control;
pub mod scan;

use std::{
    io,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use self::control::{Control, Next};
use crate::{
    finding::{
        Finding, Observer,
        head::Head,
        run::{End, Health, Hooks},
        selection::Selection,
        totals::Totals,
    },
    tui::{
        flow_update::FlowUpdate,
        message::{Msg, Play},
        observer,
        screen::Screen,
        theme::Theme,
    },
};

/// The interval between updates of the screen.
const UPDATE: Duration = Duration::from_millis(60);

/// Shows a recording at the position and speed that the user chooses.
pub struct Player {
    selection: Selection,
    screen: Screen,
    control: Arc<Control>,
    messages: Vec<Msg>,
    /// Time of the last update of the screen.
    updated: Instant,
    /// The failure that the user searched for.
    found: Option<u64>,
    records: u64,
    totals: Totals,
}

impl Player {
    /// Opens the screen. `control` holds position and speed; `damage` is shown all the time.
    pub fn open(
        theme: Theme,
        selection: &Selection,
        control: Arc<Control>,
        damage: Option<String>,
    ) -> io::Result<Self> {
        let steered = Arc::clone(&control);
        let steer = Box::new(move |play: Play| steered.steer(play));
        let screen = observer::open(theme, Some(steer))?;
        screen.send(damage.map(Msg::Damage));
        screen.send([Msg::Notice(
            "end of the recording. 0: start, x: play to the next failure".to_owned(),
        )]);
        Ok(Self {
            selection: selection.clone(),
            screen,
            control,
            messages: Vec::new(),
            updated: Instant::now(),
            found: None,
            records: 0,
            totals: Totals::default(),
        })
    }

    /// Whether the user quit or a signal arrived.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.screen.is_over() || self.control.is_stopped()
    }

    /// Waits at the end of the recording until it is rewound. Returns the totals of the flows that were shown.
    pub fn wait_at_end(&mut self) -> Totals {
        if self.control.ended() {
            let notice = "no more failures in this recording".to_owned();
            self.messages.push(Msg::Notice(notice));
        }
        self.update(true);
        while !self.is_over() && !self.control.is_rewound() {
            self.control.wait(UPDATE);
            self.update(true);
        }
        std::mem::take(&mut self.totals)
    }

    /// Resets the player, because the recording is read from its start again.
    pub fn rewind(&mut self) {
        self.control.begin();
        self.totals = Totals::default();
        self.messages.clear();
        self.messages.push(Msg::Rewound);
    }

    /// Releases the terminal.
    pub fn close(&mut self) {
        self.screen.close();
    }

    fn update(&mut self, now: bool) {
        if !now && self.updated.elapsed() < UPDATE && self.messages.len() < 10_000 {
            return;
        }
        self.updated = Instant::now();
        self.messages.push(Msg::Records(self.records));
        self.messages.push(Msg::Playing(self.control.playing()));
        self.screen.send(self.messages.drain(..));
    }
}

impl Observer for Player {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        // First, so that the screen never mistakes a recording for a live run.
        self.messages.push(Msg::Playing(self.control.playing()));
        self.messages.push(observer::start(head, &self.selection));
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> io::Result<()> {
        self.messages.push(Msg::Hooks {
            why: hooks.why.clone(),
            hooks: hooks.hooks.clone(),
        });
        Ok(())
    }

    fn flow(&mut self, finding: &Finding<'_>) -> io::Result<()> {
        if self.selection.wants(finding) {
            self.totals.add(finding);
            if finding.is_failure() && self.control.stop_search() {
                self.found = Some(finding.flow.id);
            }
            let update = FlowUpdate::of(finding);
            self.messages.push(Msg::Flow(Box::new(update)));
        }
        Ok(())
    }

    fn wants_pending(&self) -> bool {
        self.selection.wants_pending()
    }

    fn health(&mut self, health: &Health) -> io::Result<()> {
        let lost = health.lost_by_hook.clone();
        self.messages.push(Msg::Lost(lost, health.evicted.total()));
        Ok(())
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        self.messages.push(Msg::Notice(what.to_owned()));
        Ok(())
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        self.records = end.events;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(found) = self.found.take() {
            self.messages.push(Msg::Found(found));
            self.update(true);
        } else {
            self.update(false);
        }
        Ok(())
    }

    fn records(&mut self, records: u64) {
        self.records = records;
    }

    /// Waits until playback reaches this time.
    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        loop {
            if self.is_over() {
                return Ok(ControlFlow::Break(()));
            }
            match self.control.next(now_ns) {
                Next::Go => break,
                Next::Wait(time) => {
                    self.messages.push(Msg::Now(self.control.now_ns()));
                    self.update(true);
                    self.control.wait(time.min(UPDATE));
                }
                Next::Rewind => return Ok(ControlFlow::Break(())),
            }
        }
        self.messages.push(Msg::Now(now_ns));
        self.update(false);
        Ok(ControlFlow::Continue(()))
    }
}
