//! The head of a recording: which tracer wrote it, on which kernel, and what was traced.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    depth::Depth,
    hook_state::{HookState, State},
    sandbox::Sandbox,
};
use crate::flow::engine::Limits;

/// The head of a recording. Written as JSON; a member that is missing there is empty here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// Version of tracer that recorded.
    pub tracer: String,
    /// The layouts of the kernel's records (`RECORDS` of the recording).
    pub records: u32,
    /// The same in all files of one run.
    pub session: String,
    /// Counts the files of one run, from 0.
    pub part: u32,
    /// The host's name.
    pub host: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Its version and machine, as `uname -vm` prints them.
    pub uname: String,
    /// Identifies the boot.
    pub boot_id: String,
    /// Time at which all hooks were attached.
    pub ready: Timestamp,
    /// The wall clock when tracing began.
    pub wall: Timestamp,
    /// The monotonic clock at the same moment, in nanoseconds.
    pub monotonic_ns: u64,
    /// Time after its last SYN at which a flow without progress was reported, in nanoseconds.
    pub patience_ns: u64,
    /// Limits on the flows kept: number and memory.
    pub limits: Limits,
    /// The depth that was chosen; older recordings lack it, and have all hooks.
    pub depth: Option<Depth>,
    /// The ports that were traced.
    pub ports: Vec<u16>,
    /// The client networks that were traced; empty: all.
    pub clients: Vec<String>,
    /// The hooks and their states when tracing began.
    pub hooks: Vec<HookState>,
    /// What the recording process had given up; older recordings lack it.
    pub sandbox: Option<Sandbox>,
    /// Offsets of members of the kernel's structs, in bytes.
    pub offsets: Vec<(String, u32)>,
    /// Names of this kernel's drop reasons by number.
    pub drop_reasons: Vec<(u32, String)>,
}

impl Head {
    /// The number of hooks attached when tracing began.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.hooks
            .iter()
            .filter(|hook| hook.state == State::Attached)
            .count()
    }

    /// What was in force while tracing, as the end of a list; empty if that is not known.
    #[must_use]
    pub fn confined(&self) -> String {
        let words = self.sandbox.as_ref().map(Sandbox::words);
        words.map_or_else(String::new, |words| format!("; {words}"))
    }
}
