//! Cancels a scenario that takes too long.

use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Shared by a scenario and its watchdog: what the scenario is doing, and whether it must stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancel(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    current: String,
    /// The parts started so far and when; the last one is still running.
    started: Vec<(String, Instant)>,
}

impl Cancel {
    /// Records what starts now, for the watchdog's report; fails if the scenario must stop.
    pub(super) fn begin(&self, what: impl Into<String>) -> Result<()> {
        let mut state = self.lock();
        state.current = what.into();
        let started = (state.current.clone(), Instant::now());
        state.started.push(started);
        fail_if(state.cancelled)
    }

    /// Fails if the scenario must stop.
    pub(super) fn check_cancelled(&self) -> Result<()> {
        fail_if(self.lock().cancelled)
    }

    /// The current part of the scenario.
    pub(super) fn current(&self) -> String {
        self.lock().current.clone()
    }

    /// The parts started so far and how long each took, one per line.
    pub(super) fn timing(&self) -> String {
        let state = self.lock();
        let ends = state
            .started
            .iter()
            .skip(1)
            .map(|(_, since)| *since)
            .chain([Instant::now()]);
        let mut text = String::from("time spent");
        for ((what, since), end) in state.started.iter().zip(ends) {
            let ms = end.duration_since(*since).as_millis();
            let what = what.lines().next().unwrap_or_default();
            let _ = write!(text, "\n{ms:6} ms  {what}");
        }
        text
    }

    /// Tells the scenario to stop, and wakes it from its sleep.
    pub(super) fn cancel(&self) {
        self.lock().cancelled = true;
        self.0.1.notify_all();
    }

    /// Sleeps; fails if the scenario must stop.
    pub(super) fn sleep(&self, time: Duration) -> Result<()> {
        let (_, condvar) = &*self.0;
        let (state, _) = condvar
            .wait_timeout_while(self.lock(), time, |state| !state.cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        fail_if(state.cancelled)
    }

    /// Polls a condition until it holds or the time limit has passed. Returns whether it holds.
    pub(super) fn wait_until(
        &self,
        limit: Duration,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        const POLL_INTERVAL: Duration = Duration::from_millis(20);
        let start = Instant::now();
        loop {
            if holds()? {
                return Ok(true);
            }
            if start.elapsed() >= limit {
                return Ok(false);
            }
            self.sleep(POLL_INTERVAL)?;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fail_if(cancelled: bool) -> Result<()> {
    if cancelled {
        bail!("stopped by the watchdog");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_cancelled_sleep_ends_at_once_and_fails() {
        let cancel = Cancel::default();
        cancel.begin("sleeping").unwrap();
        let sleeper = thread::spawn({
            let cancel = cancel.clone();
            move || cancel.sleep(Duration::from_mins(1))
        });
        cancel.cancel();
        assert!(sleeper.join().unwrap().is_err());
        assert!(cancel.begin("more").is_err());
    }

    #[test]
    fn waiting_ends_when_the_condition_holds_or_at_the_limit() {
        let cancel = Cancel::default();
        let mut polls = 0;
        let holds = cancel.wait_until(Duration::from_mins(1), || {
            polls += 1;
            Ok(polls == 3)
        });
        assert!(holds.unwrap());
        assert!(!cancel.wait_until(Duration::ZERO, || Ok(false)).unwrap());
    }
}
