//! The screen as an observer of a live run.

use std::io::{self, Write as _};
use std::ops::ControlFlow;

use crate::{
    finding::{
        Clock, Finding, Observer,
        costs::Costs,
        head::Head,
        observer::Progress,
        run::{End, Health, Hooks},
        sandbox::Sandbox,
        selection::Selection,
        totals::Totals,
    },
    tui::{
        flow_update::FlowUpdate,
        message::Msg,
        screen::{Screen, Steer},
        theme::Theme,
    },
};

/// Sends the events of a live run to the screen.
pub struct ScreenObserver {
    theme: Theme,
    selection: Selection,
    screen: Option<Screen>,
    /// Sent to the screen with the next flush.
    messages: Vec<Msg>,
    totals: Totals,
}

impl ScreenObserver {
    /// Creates the observer. The screen opens when the run starts.
    #[must_use]
    pub fn new(theme: Theme, selection: &Selection) -> Self {
        Self {
            theme,
            selection: selection.clone(),
            screen: None,
            messages: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Totals of the flows that were shown.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    fn send(&mut self) {
        if let Some(screen) = &self.screen {
            screen.send(self.messages.drain(..));
        }
    }
}

/// The message that starts a run.
pub(super) fn start(head: &Head, selection: &Selection) -> Msg {
    Msg::Start {
        host: head.host.clone(),
        kernel: head.kernel.clone(),
        ports: head.ports.len(),
        selection: selection.words(),
        hooks: head.hooks.clone(),
        sandbox: head.sandbox.as_ref().map(Sandbox::words).unwrap_or_default(),
        clock: Clock::new(head.wall, head.monotonic_ns),
    }
}

/// The error of a screen that could not be opened, inside an [`io::Error`]. Nothing was written yet.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the terminal: {0}; try --plain")]
pub struct TerminalError(io::Error);

/// Opens the screen. The error is a [`TerminalError`].
pub(super) fn open(theme: Theme, steer: Option<Steer>) -> io::Result<Screen> {
    Screen::open(theme, steer).map_err(|error| io::Error::new(error.kind(), TerminalError(error)))
}

impl Observer for ScreenObserver {
    fn start(&mut self, head: &Head) -> io::Result<()> {
        self.screen = Some(open(self.theme, None)?);
        self.messages.push(start(head, &self.selection));
        self.send();
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

    fn end(&mut self, _: &End) -> io::Result<()> {
        self.messages.push(Msg::Ended);
        self.send();
        if let Some(screen) = &mut self.screen {
            screen.close();
            // stderr may be closed.
            let _ = writeln!(io::stderr(), "tracer: detaching hooks");
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send();
        Ok(())
    }

    fn now(&mut self, now_ns: u64) -> io::Result<ControlFlow<()>> {
        self.messages.push(Msg::Now(now_ns));
        Ok(ControlFlow::Continue(()))
    }

    fn damage(&mut self, what: &str) -> io::Result<()> {
        self.messages.push(Msg::Notice(what.to_owned()));
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

    fn is_done(&self) -> bool {
        self.screen.as_ref().is_some_and(Screen::is_over)
    }
}
