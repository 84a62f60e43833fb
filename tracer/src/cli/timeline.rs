//! A recording on the screen: played at any speed, to and fro.
//!
//! It can only be read forwards. To go back, it is read from its beginning again, as fast as it goes.

mod control;
mod scan;

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};

use self::{
    control::{Control, Next},
    scan::Scan,
};
use super::{
    args::{ReplayOptions, Select},
    exit::Failure,
    play,
    signals::Signals,
    totals::Totals,
    view::{Told, View},
    watcher,
};
use crate::{
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
    tui::{
        message::{Msg, Play},
        row::is_trouble,
        screen::Screen,
    },
};

/// How often the screen is told where it is.
const TELL: Duration = Duration::from_millis(60);

/// Shows the recording until the user ends it.
pub(super) fn run(options: &ReplayOptions) -> Result<(), Failure> {
    if options.files.iter().any(|path| path == Path::new("-")) {
        return Err(Failure::Usage(
            "the screen goes to and fro in a recording, which standard input does not allow; give a file, or --plain"
                .to_owned(),
        ));
    }
    eprintln!("tracer: reading");
    let mut scan = Scan::new(&options.select);
    let runs = play::open(&options.files)?;
    if runs.len() != 1 {
        return Err(Failure::Usage(
            "these are recordings of several runs: give those of one, or --plain".to_owned(),
        ));
    }
    for run in runs {
        play::play(run, &mut scan)?;
    }
    let control = Arc::new(Control::new(scan.begin_ns, scan.end_ns, scan.troubles));
    let steered = Arc::clone(&control);
    let steer = Box::new(move |play: Play| steered.steer(play));
    let signals = Signals::listen().context("cannot handle signals")?;
    let stopped = Arc::clone(&control);
    thread::spawn(move || {
        signals.wait();
        stopped.stop();
    });
    let screen = Screen::open(options.look.theme(), Some(steer));
    let mut player = Player {
        select: options.select.clone(),
        screen: screen.context("cannot use the terminal; try --plain")?,
        control,
        messages: Vec::new(),
        told: Instant::now(),
        found: None,
        records: 0,
        totals: Totals::default(),
        patience_ns: 0,
    };
    player.screen.tell([Msg::Notice(
        "this is all of it; 0 plays it from its start, x goes to the next trouble".to_owned(),
    )]);
    let counts = player.play(options)?;
    player.screen.close();
    match options.fail_on {
        Some(fate) if counts.counts().by_fate.contains_key(&fate) => Err(Failure::FailOn(fate.name())),
        _ => Ok(()),
    }
}

struct Player {
    patience_ns: u64,
    select: Select,
    screen: Screen,
    control: Arc<Control>,
    messages: Vec<Msg>,
    /// When the screen was last told.
    told: Instant,
    /// The flow that was looked for.
    found: Option<u64>,
    records: u64,
    totals: Totals,
}

impl Player {
    /// Plays it, again and again from its beginning as that is wished.
    fn play(&mut self, options: &ReplayOptions) -> Result<Totals, Failure> {
        let mut whole = None;
        loop {
            let run = play::open(&options.files)?
                .pop()
                .ok_or_else(|| Failure::Failed(anyhow!("the recording is gone")))?;
            self.totals = Totals::default();
            match play::play(run, self) {
                Ok(()) => {
                    whole = Some(std::mem::take(&mut self.totals));
                    if self.control.ended() {
                        let said = "no flow goes wrong from there on".to_owned();
                        self.messages.push(Msg::Notice(said));
                    }
                    self.wait();
                }
                // This is how playing is broken off.
                Err(Failure::ClosedPipe) => {}
                Err(failure) => return Err(failure),
            }
            if self.is_over() {
                return Ok(whole.unwrap_or_default());
            }
            self.control.begin();
            self.messages.clear();
            self.messages.push(Msg::Rewound);
        }
    }

    /// Has the user seen enough, or does a signal end it?
    fn is_over(&self) -> bool {
        self.screen.is_over() || self.control.is_stopped()
    }

    /// Waits at the end until it is to be played again.
    fn wait(&mut self) {
        self.tell(true);
        while !self.is_over() && !self.control.is_rewound() {
            self.control.wait(TELL);
            self.tell(true);
        }
    }

    fn tell(&mut self, now: bool) {
        if !now && self.told.elapsed() < TELL && self.messages.len() < 10_000 {
            return;
        }
        self.told = Instant::now();
        self.messages.push(Msg::Records(self.records));
        self.messages.push(Msg::Playing(self.control.playing()));
        self.screen.tell(self.messages.drain(..));
    }
}

impl View for Player {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        self.patience_ns = head.patience_ns;
        // Before all else: what is said of a recording does not come now.
        self.messages.push(Msg::Playing(self.control.playing()));
        self.messages.push(watcher::start(head, &self.select));
        Ok(())
    }

    fn hooks(&mut self, hooks: &Hooks) -> Result<(), Failure> {
        self.messages.push(Msg::Hooks {
            why: hooks.why.clone(),
            hooks: hooks.hooks.clone(),
        });
        Ok(())
    }

    fn flow(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        if let Some(flow) = watcher::flow(&self.select, told, self.patience_ns) {
            self.totals.said(told.flow, told.fate, told.diagnosis.cause);
            if is_trouble(flow.fate) && self.control.found() {
                self.found = Some(flow.id);
            }
            self.messages.push(Msg::Flow(Box::new(flow)));
        }
        Ok(())
    }

    fn wants_open(&self) -> bool {
        watcher::wants_open(&self.select)
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
        self.messages.push(Msg::Lost(health.lost_by_hook.clone()));
        Ok(())
    }

    fn damage(&mut self, what: &str) -> Result<(), Failure> {
        self.messages.push(Msg::Notice(what.to_owned()));
        Ok(())
    }

    fn end(&mut self, end: &End) -> Result<(), Failure> {
        self.records = end.events;
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Failure> {
        if let Some(found) = self.found.take() {
            self.messages.push(Msg::Found(found));
            self.tell(true);
        } else {
            self.tell(false);
        }
        Ok(())
    }

    fn records(&mut self, records: u64) {
        self.records = records;
    }

    /// Holds it up until this moment has come.
    fn now(&mut self, now_ns: u64) -> Result<(), Failure> {
        loop {
            if self.is_over() {
                return Err(Failure::ClosedPipe);
            }
            match self.control.next(now_ns) {
                Next::Go => break,
                Next::Wait(time) => {
                    self.messages.push(Msg::Now(self.control.now_ns()));
                    self.tell(true);
                    self.control.wait(time.min(TELL));
                }
                Next::Rewind => return Err(Failure::ClosedPipe),
            }
        }
        self.messages.push(Msg::Now(now_ns));
        self.tell(false);
        Ok(())
    }
}
