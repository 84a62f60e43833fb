//! Messages to the model, and the commands it returns.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::flow_update::FlowUpdate;
use crate::finding::{clock::Clock, costs::Costs, hook_state::HookState};

/// A message to the model.
#[derive(Clone, Debug)]
pub enum Msg {
    /// Tracing, or a recording, starts.
    Start {
        /// The host's name.
        host: String,
        /// The kernel's release.
        kernel: String,
        /// The number of ports traced.
        ports: usize,
        /// The command line's selection, in the words of the filter; empty if everything is shown.
        selection: String,
        /// Each hook and its state.
        hooks: Vec<HookState>,
        /// What is in force for the tracing process, in one line; empty if that is not known.
        sandbox: String,
        /// Turns the kernel's monotonic time into wall-clock time.
        clock: Clock,
    },
    /// A flow's fate is known, or has changed.
    Flow(Box<FlowUpdate>),
    /// Hooks changed their state.
    Hooks {
        /// Why they changed.
        why: String,
        /// The hooks that changed.
        hooks: Vec<HookState>,
    },
    /// Records lost so far by hook, and flows evicted.
    Lost(Vec<(String, u64)>, u64),
    /// Records received so far; sent once a second.
    Records(u64),
    /// CPU time of the hooks in the last second.
    Costs(Costs),
    /// The kernel's monotonic clock, nanoseconds.
    Now(u64),
    /// A line for stderr: shown now, and printed once the terminal is released.
    Log(String),
    /// A line that is only shown.
    Notice(String),
    /// The recording is damaged or truncated.
    Damage(String),
    /// Tracing ended.
    Ended,
    /// The state of playback.
    Playing(Playing),
    /// The failure that playback searched for: the flow's number.
    Found(u64),
    /// The recording is read from its start again: forget all flows.
    Rewound,
    /// A key was pressed.
    Key(KeyCode, KeyModifiers),
    /// Text was pasted.
    Pasted(String),
    /// The screen's new size: columns, lines.
    Size(u16, u16),
    /// A frame is about to be drawn.
    Frame,
}

/// The state of playback.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Playing {
    /// Start of the recording, monotonic nanoseconds.
    pub begin_ns: u64,
    /// End of the recording, monotonic nanoseconds.
    pub end_ns: u64,
    /// The current position, monotonic nanoseconds.
    pub now_ns: u64,
    /// Multiple of real time; 0: as fast as possible.
    pub speed: u32,
    /// Whether playback is paused.
    pub is_paused: bool,
    /// Whether playback is seeking to a position the user chose.
    pub is_seeking: bool,
    /// Starts of failed flows, as far as known; monotonic nanoseconds.
    pub failures: Vec<u64>,
}

/// A request of the model to the screen.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// End tracing or playback, and close the screen.
    Quit,
    /// Stop the process, as Ctrl-Z does.
    Suspend,
    /// Redraw the whole screen.
    Redraw,
    /// Copy to the terminal's clipboard.
    Copy(String),
    /// Write to a file.
    Export {
        /// Part of the file's name.
        what: &'static str,
        /// The content of the file.
        text: String,
    },
    /// Control playback.
    Play(Play),
}

/// A change of playback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// Stop or continue.
    Toggle,
    /// Set the multiple of real time; 0: as fast as possible.
    Speed(u32),
    /// Go to this position, monotonic nanoseconds.
    Seek(u64),
    /// Play up to the next failure.
    NextFailure,
}
