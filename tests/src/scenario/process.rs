//! tracer as a process: how a scenario runs it, and what it must do apart from tracing.

use serde::Deserialize;

/// How tracer is run in a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Options of `tracer live`, in addition to the lab's own.
    pub options: Vec<String>,
    /// The depth of `tracer live`; otherwise that of the lab.
    pub depth: Option<String>,
    /// The exit status it must end with.
    pub status: i32,
    /// A shell command that the node runs before tracer starts; undone like [`Step::Run`](super::Step::Run).
    pub before: Option<String>,
    /// Checks of tracer as a process, made before it runs for the steps.
    pub checks: Vec<Check>,
    /// A shell command that prints, after the last step, how many packets of traced handshakes arrived from devices, by a
    /// counter of the kernel: tracer must have recorded each of them or counted it as lost, and must have lost some.
    pub arrivals: Option<String>,
    /// The limit of its peak memory, in MiB.
    pub memory_mib: Option<u32>,
}

/// A check of tracer as a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// `tracer hooks` lists every hook with its state and a reason, and `tracer live` attaches the same ones.
    Hooks,
    /// However it ends (SIGINT, SIGTERM, SIGKILL, closed pipe), nothing stays in the kernel.
    Ends,
    /// Without the capabilities needed for tracing it names them, and with them it works.
    Privileges,
    /// Once it is ready, every thread of `tracer live` is confined, as its first line says.
    Confined,
    /// `tracer record` leaves a readable recording, however it ends: killed, stopped, after the event it
    /// waited for, or with a full disk.
    Records,
    /// `tracer live` ends after a time, a number of flows or a match, with its exit status, and runs a command for each flow.
    RunEnds,
}
