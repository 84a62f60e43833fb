//! The protocol between host and guest: the job, and the guest's messages.
//!
//! The host puts a [`Job`] into the initramfs at [`JOB_PATH`]. The guest sends its messages on its second
//! serial port, [`PORT`], one JSON object per line, each of them a [`Message`]. The first serial port is the
//! console, for kernel messages and other plain text.

mod bench;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use bench::{Bench, Beside, Measurement, PWRU_DIR, ProgramCost};

/// How long a cancelled scenario may take to clean up. One that takes longer is stuck: the guest reports it
/// and runs no more scenarios.
pub const CLEAN_UP: Duration = Duration::from_mins(1);

/// The guest's path of its [`Job`].
pub const JOB_PATH: &str = "/lab/job.json";

/// The guest's folder of scenarios, one `NAME.toml` each.
pub const SCENARIOS_DIR: &str = "/lab/scenarios";

/// The guest's path of the tracer binary.
pub const TRACER_PATH: &str = "/bin/tracer";

/// Each module of the guest and its dependencies, one module per line, in load order.
pub const MODULE_NEEDS: &str = "/lib/modules/needs";

/// The aliases of the guest's modules, one per line: alias, module.
pub const MODULE_ALIASES: &str = "/lib/modules/aliases";

/// The guest's path of a module.
#[must_use]
pub fn module_path(name: &str) -> String {
    format!("/lib/modules/{name}.ko")
}

/// The guest's device for [`Message`]s.
pub const PORT: &str = "/dev/ttyS1";

/// The guest's device for the user's terminal.
pub const SCREEN: &str = "/dev/ttyS2";

/// The size and capabilities of the user's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its width in columns.
    pub columns: u16,
    /// Its height in lines.
    pub lines: u16,
    /// Environment variables that describe its capabilities.
    pub environment: Vec<(String, String)>,
}

/// The task of one boot.
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Names of the scenarios to run, in this order.
    pub scenarios: Vec<String>,
    /// Keep the `path` of each flow; otherwise the guest may remove it from tracer's lines.
    pub keep_path: bool,
    /// Run the scenarios without tracer: only the clients' truth is returned.
    #[serde(default)]
    pub without_tracer: bool,
    /// Run tracer at this depth, where a scenario names none.
    #[serde(default)]
    pub depth: Option<String>,
    /// Run tracer with `--plain` instead of `--json`.
    pub demo: bool,
    /// Send more [`Message::Note`]s.
    pub verbose: bool,
    /// Return tracer's recordings.
    #[serde(default)]
    pub recordings: bool,
    /// Show tracer's screen on this terminal, and run the scenarios again and again until the user quits.
    #[serde(default)]
    pub screen: Option<Terminal>,
    /// Measure on the topologies of the scenarios instead of running their steps.
    #[serde(default)]
    pub bench: Option<Bench>,
    /// Kernel modules to load before the first scenario, in this order: paths of uncompressed `.ko` files in
    /// the guest. Dependencies come first; built-in modules are not listed.
    pub modules: Vec<String>,
}

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Message {
    /// The guest is up, and its modules are loaded.
    Ready {
        /// `uname -r`.
        release: String,
    },
    /// A scenario starts.
    Begin {
        /// Its name.
        scenario: String,
    },
    /// A line of tracer's standard output, unmodified.
    Tracer {
        /// The line without the newline.
        line: String,
    },
    /// A line of tracer's standard error.
    Stderr {
        /// The line without the newline.
        line: String,
    },
    /// The outcome of a connection attempt, as reported by the client: the ground truth.
    Traffic(Traffic),
    /// A note for the user about what a step did.
    Note {
        /// One sentence.
        text: String,
    },
    /// A measurement.
    Measurement(Measurement),
    /// What a BPF program cost.
    ProgramCost(ProgramCost),
    /// A part of tracer's recording, in order.
    Recording {
        /// Its bytes in hexadecimal.
        hex: String,
    },
    /// A scenario is over.
    End {
        /// Its name.
        scenario: String,
        /// Whether it could run; this does not judge tracer's output.
        ok: bool,
        /// The reason where `ok` is false.
        why: Option<String>,
    },
    /// tracer's screen exited without the user quitting it.
    ScreenFailed {
        /// The failure, in words.
        text: String,
    },
    /// All scenarios are over, and the guest powers off.
    Done,
}

/// The outcome of a connection attempt, as reported by the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The client's name in the scenario.
    pub client: String,
    /// Its source port.
    pub source_port: u16,
    /// The address it connected to.
    pub to: SocketAddr,
    /// How `connect()` ended.
    pub outcome: Outcome,
    /// The duration of `connect()`, in milliseconds.
    pub ms: f64,
    /// The time from then to the pod's first byte, in milliseconds; `None` without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_ms: Option<f64>,
    /// The name sent by the pod that answered; `None` without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// How a client's `connect()` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The handshake finished.
    Connected,
    /// A RST came back: `ECONNREFUSED`.
    Refused,
    /// The client timed out.
    Timeout,
    /// An ICMP error came back: `EHOSTUNREACH`, `ENETUNREACH`.
    Unreachable,
    /// The client closed its socket before the handshake was decided.
    Aborted,
    /// The client only sent SYNs and ignored the answers.
    Silent,
    /// Anything else; a note from the guest has the error.
    Failed,
}

impl Message {
    /// The message as one line of JSON, without the newline.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Serializing our own structs of strings, numbers and booleans cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses one line; `None` for anything but a message, for example a line cut short when the guest died.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_documented_form() {
        let line = |message: Message| message.to_line();
        assert_eq!(line(Message::Done), r#"{"type":"done"}"#);
        assert_eq!(
            line(Message::Ready {
                release: "6.12".into()
            }),
            r#"{"type":"ready","release":"6.12"}"#
        );
        assert_eq!(
            line(Message::Traffic(Traffic {
                client: "client-a".into(),
                source_port: 40_000,
                to: ([10, 0, 0, 1], 30_080).into(),
                outcome: Outcome::Timeout,
                ms: 3.5,
                answer_ms: None,
                backend: None
            })),
            r#"{"type":"traffic","client":"client-a","source_port":40000,"to":"10.0.0.1:30080","outcome":"timeout","ms":3.5}"#
        );
        assert_eq!(
            line(Message::End {
                scenario: "healthy".into(),
                ok: true,
                why: None
            }),
            r#"{"type":"end","scenario":"healthy","ok":true,"why":null}"#
        );
    }

    #[test]
    fn messages_round_trip() {
        let message = Message::Tracer {
            line: r#"{"type":"start","schema":1}"#.into(),
        };
        assert_eq!(
            Message::from_line(&format!("{}\r\n", message.to_line())),
            Some(message)
        );
        assert_eq!(Message::from_line(r#"{"type":"tracer","line":"cut sho"#), None);
    }
}
