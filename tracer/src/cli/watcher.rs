//! Who looks on at a screen: hands on what tracing finds out.

use std::io::Write as _;

use anyhow::Context as _;

use super::{
    args::{Select, look::Look},
    exit::Failure,
    select,
    totals::Totals,
    view::{Progress, Told, View},
};
use crate::{
    flow::fate::Fate,
    probe::costs::Costs,
    report::Clock,
    trace::{
        head::Head,
        item::{End, Health, Hooks},
    },
    tui::{message::Msg, row, screen::Screen},
};

/// See the module.
pub(super) struct Watcher {
    look: Look,
    select: Select,
    screen: Option<Screen>,
    /// What is told with the next pause.
    messages: Vec<Msg>,
    totals: Totals,
    patience_ns: u64,
}

impl Watcher {
    pub(super) fn new(look: &Look, select: &Select) -> Self {
        // Attaching takes its time.
        eprintln!("tracer: attaching hooks");
        Self {
            look: look.clone(),
            select: select.clone(),
            screen: None,
            messages: Vec::new(),
            totals: Totals::default(),
            patience_ns: 0,
        }
    }

    /// The exit status that `--fail-on` asks for.
    pub(super) fn fail_on(&self, fate: Option<Fate>) -> Result<(), Failure> {
        match fate {
            Some(fate) if self.totals.counts().by_fate.contains_key(&fate) => {
                Err(Failure::FailOn(fate.name()))
            }
            _ => Ok(()),
        }
    }

    fn tell(&mut self) {
        if let Some(screen) = &self.screen {
            screen.tell(self.messages.drain(..));
        }
    }
}

/// What a model is told at the beginning.
pub(super) fn start(head: &Head, select: &Select) -> Msg {
    Msg::Start {
        host: head.host.clone(),
        kernel: head.kernel.clone(),
        ports: head.ports.len(),
        only: select.words(),
        hooks: head.hooks.clone(),
        clock: Clock::new(head.wall, head.monotonic_ns),
    }
}

/// What a model is told of a flow, if it is wanted.
pub(super) fn flow(select: &Select, told: &Told<'_>, patience_ns: u64) -> Option<row::Told> {
    let Told {
        flow,
        fate,
        diagnosis,
        facts,
        ..
    } = told;
    select::is_wanted(select, told).then(|| row::Told::of(flow, *fate, diagnosis, facts, patience_ns))
}

/// Are flows wanted whose fate is not known? Whoever asks for a fate or a cause wants to see no other, and a flow that was
/// shown stays.
pub(super) fn wants_open(select: &Select) -> bool {
    select.fate.is_empty() && select.cause.is_empty()
}

impl View for Watcher {
    fn start(&mut self, head: &Head) -> Result<(), Failure> {
        let screen = Screen::open(self.look.theme(), None);
        self.screen = Some(screen.context("cannot use the terminal; try --plain")?);
        self.patience_ns = head.patience_ns;
        self.messages.push(start(head, &self.select));
        self.tell();
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
        if let Some(flow) = flow(&self.select, told, self.patience_ns) {
            self.totals.said(told.flow, told.fate, told.diagnosis.cause);
            self.messages.push(Msg::Flow(Box::new(flow)));
        }
        Ok(())
    }

    fn wants_open(&self) -> bool {
        wants_open(&self.select)
    }

    fn health(&mut self, health: &Health) -> Result<(), Failure> {
        self.messages.push(Msg::Lost(health.lost_by_hook.clone()));
        Ok(())
    }

    fn end(&mut self, _: &End) -> Result<(), Failure> {
        self.messages.push(Msg::Ended);
        self.tell();
        if let Some(screen) = &mut self.screen {
            screen.close();
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "tracer: detaching hooks");
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.tell();
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> Result<(), Failure> {
        self.messages.push(Msg::Now(now_ns));
        Ok(())
    }

    fn progress(&mut self, progress: Progress) {
        self.messages.push(Msg::Records(progress.events));
    }

    fn wants_costs(&self) -> bool {
        self.screen.as_ref().is_some_and(Screen::shows_hooks)
    }

    fn costs(&mut self, costs: Costs) {
        self.messages.push(Msg::Costs(costs));
    }

    fn is_over(&self) -> bool {
        self.screen.as_ref().is_some_and(Screen::is_over)
    }
}
