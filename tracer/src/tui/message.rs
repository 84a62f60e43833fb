//! What the model is told, and what it wants done.

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::row::Told;
use crate::finding::{clock::Clock, costs::Costs, hook_state::HookState};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Msg {
    /// Tracing, or a recording, begins.
    Start {
        /// Where.
        host: String,
        /// On which kernel.
        kernel: String,
        /// How many ports are followed.
        ports: usize,
        /// What the command line chose to be shown, in the words of the filter; empty if everything.
        only: String,
        /// The hooks.
        hooks: Vec<HookState>,
        /// From the kernel's clock to that on the wall.
        clock: Clock,
    },
    /// A flow's fate is known, or has changed.
    Flow(Box<Told>),
    /// Hooks changed their state, and why.
    Hooks {
        /// Why.
        why: String,
        /// Those that changed.
        hooks: Vec<HookState>,
    },
    /// Records that were lost so far, by hook.
    Lost(Vec<(String, u64)>),
    /// Records that came so far; once a second.
    Records(u64),
    /// What the hooks cost in the last second.
    Costs(Costs),
    /// The kernel's monotonic clock.
    Now(u64),
    /// Something that would have gone to stderr.
    Said(String),
    /// Something to be read once.
    Notice(String),
    /// There is no more.
    Ended,
    /// How a recording is played.
    Playing(Playing),
    /// The flow that was looked for.
    Found(u64),
    /// All that was told is told anew: a recording begins from its start.
    Rewound,
    /// A key was pressed.
    Key(KeyCode, KeyModifiers),
    /// Text was pasted.
    Pasted(String),
    /// The screen's size.
    Size(u16, u16),
    /// A frame is about to be drawn.
    Frame,
}

/// How a recording is played.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Playing {
    /// The first moment, monotonic nanoseconds.
    pub begin_ns: u64,
    /// The last one.
    pub end_ns: u64,
    /// Where it is.
    pub now_ns: u64,
    /// So many times as fast as it was; 0: as fast as it goes.
    pub speed: u32,
    /// Does it stand still?
    pub is_paused: bool,
    /// Is it on its way to a place that was asked for?
    pub is_seeking: bool,
    /// Moments at which flows that went wrong began, as far as that is known.
    pub troubles: Vec<u64>,
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// End.
    Quit,
    /// Stop, as by Ctrl-Z.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// To the clipboard, by way of the terminal.
    Copy(String),
    /// To a file whose name has this in it.
    Export {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Play the recording otherwise.
    Play(Play),
}

/// How the recording is to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// Stop or go on.
    Toggle,
    /// So many times as fast as it was; 0: as fast as it goes.
    Speed(u32),
    /// From this moment on.
    Seek(u64),
    /// Up to the next flow that went wrong.
    NextTrouble,
}

/// A moment on the wall.
#[must_use]
pub fn wall(clock: Option<&Clock>, ns: u64) -> Option<Timestamp> {
    clock.map(|clock| clock.at(ns))
}
