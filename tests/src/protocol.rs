//! What host and guest say to each other: the job handed in, the lines handed back.
//!
//! The host puts a [`Job`] into the initramfs at [`JOB_PATH`]. The guest answers on its second serial port,
//! [`PORT`], with one JSON object a line, each of them a [`Message`]. The first serial port stays the console:
//! kernel messages and whatever else is meant for eyes only.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a scenario that took too long and was stopped may take to clean up. One that takes longer is stuck: the
/// guest says so and plays no more.
pub const CLEAN_UP: Duration = Duration::from_mins(1);

/// Where the guest finds its [`Job`].
pub const JOB_PATH: &str = "/lab/job.json";

/// The folder in the guest that holds the scenarios, one `NAME.toml` each.
pub const SCENARIOS_DIR: &str = "/lab/scenarios";

/// Where the guest finds the tracer binary.
pub const TRACER_PATH: &str = "/bin/tracer";

/// Each module of the guest and all that it needs, one a line, in the order of loading.
pub const MODULE_NEEDS: &str = "/lib/modules/needs";

/// Other names of the guest's modules, one a line: alias, module.
pub const MODULE_ALIASES: &str = "/lib/modules/aliases";

/// Where the guest finds a module.
#[must_use]
pub fn module_path(name: &str) -> String {
    format!("/lib/modules/{name}.ko")
}

/// The guest's device for [`Message`]s.
pub const PORT: &str = "/dev/ttyS1";

/// The guest's device for the user's terminal.
pub const SCREEN: &str = "/dev/ttyS2";

/// The user's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// How wide it is.
    pub columns: u16,
    /// How high it is.
    pub lines: u16,
    /// Variables of the environment that say what it can show.
    pub environment: Vec<(String, String)>,
}

/// What one boot is for.
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that have nothing to do with each other"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Names of the scenarios to play, in this order.
    pub scenarios: Vec<String>,
    /// Hand on the `path` of each flow; without it the guest may strip it from tracer's lines.
    pub keep_path: bool,
    /// Play the scenarios without tracer: only the traffic's own truth comes back.
    #[serde(default)]
    pub without_tracer: bool,
    /// Let tracer speak its plain lines, for people, instead of JSON.
    pub demo: bool,
    /// Say more in [`Message::Note`]s.
    pub verbose: bool,
    /// Hand over what tracer recorded.
    #[serde(default)]
    pub recordings: bool,
    /// Show tracer's screen on this terminal, and play the scenarios again and again until the user ends it.
    #[serde(default)]
    pub screen: Option<Terminal>,
    /// Kernel modules to load before the first scenario, in this order: paths of uncompressed `.ko` files in the
    /// guest. Dependencies come before what needs them; what the kernel has built in is not among them.
    pub modules: Vec<String>,
}

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Message {
    /// The guest is up, its modules are loaded.
    Ready {
        /// `uname -r`.
        release: String,
    },
    /// A scenario starts.
    Begin {
        /// Its name.
        scenario: String,
    },
    /// What tracer printed on its standard output: one line, as it was.
    Tracer {
        /// The line without its end.
        line: String,
    },
    /// What tracer printed on its standard error.
    Stderr {
        /// The line without its end.
        line: String,
    },
    /// One connection attempt as the client itself lived it: the ground truth.
    Traffic(Traffic),
    /// What a step of the scenario did, for people.
    Note {
        /// One sentence.
        text: String,
    },
    /// A part of what tracer recorded, in order.
    Recording {
        /// Its bytes as hexadecimal digits.
        hex: String,
    },
    /// A scenario is over.
    End {
        /// Its name.
        scenario: String,
        /// Whether it could be played; this says nothing about what tracer made of it.
        ok: bool,
        /// What went wrong where `ok` is false.
        why: Option<String>,
    },
    /// tracer's screen ended otherwise than the user wished.
    Farewell {
        /// What happened.
        text: String,
    },
    /// All scenarios are over, the guest powers off.
    Done,
}

/// One connection attempt as the client itself lived it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The client's name in the scenario.
    pub client: String,
    /// Its source port.
    pub source_port: u16,
    /// Where it connected to.
    pub to: SocketAddr,
    /// How `connect()` ended.
    pub outcome: Outcome,
    /// How long `connect()` took, in milliseconds.
    pub ms: f64,
    /// How long after that the first word of the pod came, in milliseconds; `None` where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_ms: Option<f64>,
    /// The pod that answered, by the name it gave; `None` where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// How a client's `connect()` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The handshake finished.
    Connected,
    /// An RST came back: `ECONNREFUSED`.
    Refused,
    /// The client gave up waiting.
    Timeout,
    /// An ICMP error came back: `EHOSTUNREACH`, `ENETUNREACH`.
    Unreachable,
    /// The client closed its socket before anything was decided.
    Aborted,
    /// The client sent SYNs and never meant to say more, nor listened to what came back.
    Silent,
    /// Anything else; the guest's notes say what.
    Failed,
}

impl Message {
    /// The message as one line of JSON, without the line's end.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Strings, numbers and booleans in a struct of ours: there is nothing that serde_json could refuse.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one line; `None` for what is no message, such as a line that the guest's death has cut short.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_agreed() {
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
    fn a_line_survives_the_way_there_and_back() {
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
