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
    doing: String,
    /// What was started so far and when; the last one is still running.
    done: Vec<(String, Instant)>,
}

impl Cancel {
    /// Records what starts now, for the watchdog's report; fails if the scenario must stop.
    pub(super) fn doing(&self, what: impl Into<String>) -> Result<()> {
        let mut state = self.lock();
        state.doing = what.into();
        let done = (state.doing.clone(), Instant::now());
        state.done.push(done);
        stop_if(state.cancelled)
    }

    /// Fails if the scenario must stop.
    pub(super) fn go_on(&self) -> Result<()> {
        stop_if(self.lock().cancelled)
    }

    /// What the scenario is doing.
    pub(super) fn what(&self) -> String {
        self.lock().doing.clone()
    }

    /// What was done so far and how long each part took, one per line.
    pub(super) fn spent(&self) -> String {
        let state = self.lock();
        let ends = state
            .done
            .iter()
            .skip(1)
            .map(|(_, since)| *since)
            .chain([Instant::now()]);
        let mut text = String::from("time spent");
        for ((what, since), end) in state.done.iter().zip(ends) {
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
        stop_if(state.cancelled)
    }

    /// Polls a condition until it holds or the time limit has passed. Returns whether it holds.
    pub(super) fn wait_until(&self, limit: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<bool> {
        const LOOK: Duration = Duration::from_millis(20);
        let start = Instant::now();
        loop {
            if so()? {
                return Ok(true);
            }
            if start.elapsed() >= limit {
                return Ok(false);
            }
            self.sleep(LOOK)?;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stop_if(cancelled: bool) -> Result<()> {
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
        cancel.doing("sleeping").unwrap();
        let sleeper = thread::spawn({
            let cancel = cancel.clone();
            move || cancel.sleep(Duration::from_mins(1))
        });
        cancel.cancel();
        assert!(sleeper.join().unwrap().is_err());
        assert!(cancel.doing("more").is_err());
    }

    #[test]
    fn waiting_ends_when_it_is_so_or_when_time_is_up() {
        let cancel = Cancel::default();
        let mut looks = 0;
        let so = cancel.wait_until(Duration::from_mins(1), || {
            looks += 1;
            Ok(looks == 3)
        });
        assert!(so.unwrap());
        assert!(!cancel.wait_until(Duration::ZERO, || Ok(false)).unwrap());
    }
}
