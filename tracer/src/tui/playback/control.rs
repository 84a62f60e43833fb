//! Position and speed of playback.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::tui::message::{Play, Playing};

/// Position and speed, shared by the screen, which changes them, and the player, which follows.
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
struct State {
    begin_ns: u64,
    end_ns: u64,
    failures: Vec<u64>,
    /// The position, and when it was current.
    now_ns: u64,
    since: Instant,
    speed: u32,
    is_paused: bool,
    /// The position to seek to.
    seek_ns: Option<u64>,
    /// Whether the player is searching for the next failure.
    is_searching: bool,
    /// Whether the recording must be read from its start again.
    is_rewound: bool,
    /// Whether playback is over.
    is_stopped: bool,
}

/// The player's next action.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Continue.
    Go,
    /// Wait at most this long, then check again.
    Wait(Duration),
    /// Stop, and read the recording from its start again.
    Rewind,
}

/// The wait while only the user can change something.
const LONG: Duration = Duration::from_secs(1);

impl Control {
    /// Creates a control that plays the whole recording at once, then stops at its end.
    #[must_use]
    pub fn new(begin_ns: u64, end_ns: u64, failures: Vec<u64>) -> Self {
        Self {
            state: Mutex::new(State {
                begin_ns,
                end_ns,
                failures,
                now_ns: begin_ns,
                since: Instant::now(),
                speed: 1,
                is_paused: true,
                seek_ns: Some(u64::MAX),
                is_searching: false,
                is_rewound: false,
                is_stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a key of the user.
    pub fn steer(&self, play: Play) {
        let mut state = self.lock();
        state.advance();
        match play {
            Play::Toggle => {
                if state.now_ns >= state.end_ns {
                    let begin_ns = state.begin_ns;
                    state.seek(begin_ns);
                    state.is_paused = false;
                } else {
                    state.is_paused = !state.is_paused;
                }
            }
            Play::Speed(speed) => {
                state.speed = speed;
                state.is_paused = false;
            }
            // Nothing follows the end.
            Play::Seek(ns) if ns >= state.end_ns && state.now_ns >= state.end_ns => {}
            Play::Seek(ns) => {
                state.seek(ns);
                // A jump to the start plays.
                state.is_paused &= ns != state.begin_ns;
            }
            Play::NextFailure => {
                if state.now_ns >= state.end_ns {
                    let begin_ns = state.begin_ns;
                    state.seek(begin_ns);
                    state.seek_ns = None;
                }
                state.is_searching = true;
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The action before the events at this time.
    pub fn next(&self, ns: u64) -> Next {
        let mut state = self.lock();
        if state.is_rewound {
            return Next::Rewind;
        }
        if let Some(seek) = state.seek_ns.filter(|&seek| seek < ns) {
            // The position is reached whether or not anything happened at it.
            state.now_ns = seek.max(state.now_ns);
            state.seek_ns = None;
            state.since = Instant::now();
        }
        if state.seek_ns.is_some() || state.is_searching || (state.speed == 0 && !state.is_paused) {
            state.now_ns = ns;
            state.since = Instant::now();
            return Next::Go;
        }
        state.advance();
        if state.now_ns >= ns {
            return Next::Go;
        }
        if state.is_paused {
            return Next::Wait(LONG);
        }
        Next::Wait(Duration::from_nanos(
            (ns - state.now_ns) / u64::from(state.speed.max(1)),
        ))
    }

    /// Stops the search, because a flow failed. Returns whether there was one.
    pub fn stop_search(&self) -> bool {
        let mut state = self.lock();
        let was_searching = state.is_searching;
        if was_searching {
            state.is_searching = false;
            state.is_paused = true;
            state.since = Instant::now();
        }
        was_searching
    }

    /// Pauses at the end. Returns whether a search was still going on.
    pub fn ended(&self) -> bool {
        let mut state = self.lock();
        let was_searching = state.is_searching;
        state.now_ns = state.end_ns;
        state.seek_ns = None;
        state.is_searching = false;
        state.is_paused = true;
        was_searching
    }

    /// Resets the position, because the recording is read from its start.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.is_rewound = false;
        state.now_ns = state.begin_ns;
        state.since = Instant::now();
    }

    /// Whether the recording must be read from its start again.
    pub fn is_rewound(&self) -> bool {
        self.lock().is_rewound
    }

    /// Ends playback.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// Whether playback is over.
    pub fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// The position, monotonic nanoseconds.
    pub fn now_ns(&self) -> u64 {
        let mut state = self.lock();
        state.advance();
        state.now_ns
    }

    /// Waits this long, or until the user presses a key.
    pub fn wait(&self, time: Duration) {
        let state = self.lock();
        drop(self.changed.wait_timeout(state, time));
    }

    /// The state to show.
    pub fn playing(&self) -> Playing {
        let state = self.lock();
        Playing {
            begin_ns: state.begin_ns,
            end_ns: state.end_ns,
            now_ns: state.now_ns,
            speed: state.speed,
            is_paused: state.is_paused,
            is_seeking: state.seek_ns.is_some() || state.is_searching,
            failures: state.failures.clone(),
        }
    }
}

impl State {
    /// Moves the position by the time that passed.
    fn advance(&mut self) {
        let passed = self.since.elapsed();
        self.since = Instant::now();
        if !self.is_paused && self.seek_ns.is_none() && !self.is_searching && !self.is_rewound {
            let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            let moved = passed.saturating_mul(self.speed.into());
            self.now_ns = self.now_ns.saturating_add(moved).min(self.end_ns);
        }
    }

    fn seek(&mut self, ns: u64) {
        self.is_searching = false;
        self.is_rewound |= ns < self.now_ns;
        self.seek_ns = Some(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at_end() -> Control {
        let control = Control::new(S, 101 * S, Vec::new());
        assert_eq!(control.next(50 * S), Next::Go);
        control.ended();
        control
    }

    #[test]
    fn at_first_the_whole_recording_is_played_at_once() {
        let control = at_end();
        let playing = control.playing();
        assert!(playing.is_paused && !playing.is_seeking);
        assert_eq!(playing.now_ns, 101 * S);
    }

    #[test]
    fn seeking_past_the_end_does_nothing() {
        let control = at_end();
        control.steer(Play::Seek(101 * S));
        assert!(!control.playing().is_seeking && !control.is_rewound());
    }

    #[test]
    fn seeking_back_reads_again_and_stops_at_the_position() {
        let control = at_end();
        control.steer(Play::Seek(40 * S));
        assert!(control.is_rewound());
        assert_eq!(control.next(60 * S), Next::Rewind);
        control.begin();
        assert_eq!(control.next(40 * S), Next::Go);
        assert_eq!(control.next(41 * S), Next::Wait(LONG));
        // A position without events is reached too.
        control.steer(Play::Seek(45 * S));
        assert_eq!(control.next(58 * S), Next::Wait(LONG));
        assert_eq!(control.playing().now_ns, 45 * S);
        control.steer(Play::Seek(60 * S));
        assert!(!control.is_rewound());
        assert_eq!(control.next(60 * S), Next::Go);
    }

    #[test]
    fn speed_scales_the_wait() {
        let control = at_end();
        control.steer(Play::Toggle);
        control.begin();
        assert_eq!(control.next(S), Next::Go);
        let Next::Wait(once) = control.next(11 * S) else {
            panic!("ten seconds have not passed")
        };
        assert!(
            once > Duration::from_secs(5) && once <= Duration::from_secs(10),
            "{once:?}"
        );
        control.steer(Play::Speed(10));
        let Next::Wait(tenfold) = control.next(11 * S) else {
            panic!("a second has not passed")
        };
        assert!(tenfold <= Duration::from_secs(1), "{tenfold:?}");
        control.steer(Play::Speed(0));
        assert_eq!(control.next(90 * S), Next::Go);
    }

    #[test]
    fn a_search_stops_at_the_first_failure() {
        let control = at_end();
        assert!(!control.stop_search());
        control.steer(Play::NextFailure);
        control.begin();
        assert_eq!(control.next(30 * S), Next::Go);
        assert!(control.stop_search() && !control.stop_search());
        assert_eq!(control.next(31 * S), Next::Wait(LONG));
    }
}
