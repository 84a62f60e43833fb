//! Where in a recording playing is, and where it is to be.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::tui::message::{Play, Playing};

/// The position and speed of a playback. The screen steers it, the player follows.
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that have nothing to do with each other"
)]
struct State {
    begin_ns: u64,
    end_ns: u64,
    troubles: Vec<u64>,
    /// Where it is, and when that was so.
    now_ns: u64,
    since: Instant,
    speed: u32,
    is_paused: bool,
    /// As fast as it goes until then.
    seek_ns: Option<u64>,
    /// As fast as it goes up to the next flow that went wrong.
    looks: bool,
    /// Must be read from the beginning again.
    is_rewound: bool,
    /// Nobody wants to see it any more.
    is_stopped: bool,
}

/// What the player does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Goes on.
    Go,
    /// Waits for so long at most, and asks again.
    Wait(Duration),
    /// Breaks off, and begins anew.
    Rewind,
}

/// How long to wait where only the user can change something.
const LONG: Duration = Duration::from_secs(1);

impl Control {
    /// All of it is played at once, and then it stands still.
    #[must_use]
    pub fn new(begin_ns: u64, end_ns: u64, troubles: Vec<u64>) -> Self {
        Self {
            state: Mutex::new(State {
                begin_ns,
                end_ns,
                troubles,
                now_ns: begin_ns,
                since: Instant::now(),
                speed: 1,
                is_paused: true,
                seek_ns: Some(u64::MAX),
                looks: false,
                is_rewound: false,
                is_stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the user wishes.
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
            // There is no more than the end.
            Play::Seek(ns) if ns >= state.end_ns && state.now_ns >= state.end_ns => {}
            Play::Seek(ns) => {
                state.seek(ns);
                // From the beginning it is to be seen.
                state.is_paused &= ns != state.begin_ns;
            }
            Play::NextTrouble => {
                if state.now_ns >= state.end_ns {
                    let begin_ns = state.begin_ns;
                    state.seek(begin_ns);
                    state.seek_ns = None;
                }
                state.looks = true;
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What to do before what happened at this moment.
    pub fn next(&self, ns: u64) -> Next {
        let mut state = self.lock();
        if state.is_rewound {
            return Next::Rewind;
        }
        if let Some(seek) = state.seek_ns.filter(|&seek| seek < ns) {
            // There it is, whether something happened then or not.
            state.now_ns = seek.max(state.now_ns);
            state.seek_ns = None;
            state.since = Instant::now();
        }
        if state.seek_ns.is_some() || state.looks || (state.speed == 0 && !state.is_paused) {
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

    /// A flow went wrong; gives whether that was looked for.
    pub fn found(&self) -> bool {
        let mut state = self.lock();
        let was_looked_for = state.looks;
        if was_looked_for {
            state.looks = false;
            state.is_paused = true;
            state.since = Instant::now();
        }
        was_looked_for
    }

    /// The end was reached; gives whether a flow that went wrong was still looked for.
    pub fn ended(&self) -> bool {
        let mut state = self.lock();
        let looked = state.looks;
        state.now_ns = state.end_ns;
        state.seek_ns = None;
        state.looks = false;
        state.is_paused = true;
        looked
    }

    /// It is read from the beginning.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.is_rewound = false;
        state.now_ns = state.begin_ns;
        state.since = Instant::now();
    }

    /// Is it to be read from the beginning?
    pub fn is_rewound(&self) -> bool {
        self.lock().is_rewound
    }

    /// Nobody wants to see it any more.
    pub fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// Does nobody want to see it any more?
    pub fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Where it is.
    pub fn now_ns(&self) -> u64 {
        let mut state = self.lock();
        state.advance();
        state.now_ns
    }

    /// Waits for so long, or until the user wishes something.
    pub fn wait(&self, time: Duration) {
        let state = self.lock();
        drop(self.changed.wait_timeout(state, time));
    }

    /// What the screen shows of it.
    pub fn playing(&self) -> Playing {
        let state = self.lock();
        Playing {
            begin_ns: state.begin_ns,
            end_ns: state.end_ns,
            now_ns: state.now_ns,
            speed: state.speed,
            is_paused: state.is_paused,
            is_seeking: state.seek_ns.is_some() || state.looks,
            troubles: state.troubles.clone(),
        }
    }
}

impl State {
    /// The time that passed, as fast as it is played.
    fn advance(&mut self) {
        let passed = self.since.elapsed();
        self.since = Instant::now();
        if !self.is_paused && self.seek_ns.is_none() && !self.looks && !self.is_rewound {
            let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            let moved = passed.saturating_mul(self.speed.into());
            self.now_ns = self.now_ns.saturating_add(moved).min(self.end_ns);
        }
    }

    fn seek(&mut self, ns: u64) {
        self.looks = false;
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
    fn at_first_all_of_it_is_played_at_once() {
        let control = at_end();
        let playing = control.playing();
        assert!(playing.is_paused && !playing.is_seeking);
        assert_eq!(playing.now_ns, 101 * S);
    }

    #[test]
    fn at_the_end_there_is_no_way_forward() {
        let control = at_end();
        control.steer(Play::Seek(101 * S));
        assert!(!control.playing().is_seeking && !control.is_rewound());
    }

    #[test]
    fn going_back_reads_it_again_and_stops_where_it_was_wished() {
        let control = at_end();
        control.steer(Play::Seek(40 * S));
        assert!(control.is_rewound());
        assert_eq!(control.next(60 * S), Next::Rewind);
        control.begin();
        assert_eq!(control.next(40 * S), Next::Go);
        assert_eq!(control.next(41 * S), Next::Wait(LONG));
        // Where nothing happens one gets on as well.
        control.steer(Play::Seek(45 * S));
        assert_eq!(control.next(58 * S), Next::Wait(LONG));
        assert_eq!(control.playing().now_ns, 45 * S);
        control.steer(Play::Seek(60 * S));
        assert!(!control.is_rewound());
        assert_eq!(control.next(60 * S), Next::Go);
    }

    #[test]
    fn it_is_played_as_fast_as_is_wished() {
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
    fn a_flow_that_went_wrong_is_looked_for_once() {
        let control = at_end();
        assert!(!control.found());
        control.steer(Play::NextTrouble);
        control.begin();
        assert_eq!(control.next(30 * S), Next::Go);
        assert!(control.found() && !control.found());
        assert_eq!(control.next(31 * S), Next::Wait(LONG));
    }
}
