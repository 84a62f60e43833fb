//! tracer as a process: how a scenario runs it, and what it must do apart from tracing.

use serde::Deserialize;

/// How tracer is run in a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Options of `tracer live`, beyond those for the lab.
    pub options: Vec<String>,
    /// The exit status with which it must end.
    pub status: i32,
    /// What the node's shell runs before tracer is started; undone like [`Step::Run`](super::Step::Run).
    pub before: Option<String>,
    /// What must hold of it before it is run for the steps.
    pub checks: Vec<Check>,
    /// It must never have had more memory than this, in MiB.
    pub memory_mib: Option<u32>,
}

/// Something that must hold of tracer as a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// `tracer hooks` names every hook with its state and a reason, and `tracer live` attaches the same ones.
    Hooks,
    /// However it ends (by SIGINT, SIGTERM, SIGKILL or a reader who went away), nothing stays in the kernel.
    Ends,
    /// Without the capabilities that tracing takes it says which ones those are, and with them it works.
    Privileges,
    /// `tracer record`, however it ends, leaves a recording that can be read: when it is killed, told to end, when it
    /// has seen what it was to wait for, when the disk is full.
    Records,
}
