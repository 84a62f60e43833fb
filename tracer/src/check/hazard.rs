//! A hazard and its state on a node.

use crate::facts::node_state::NodeState;

/// A known hazard.
#[derive(Clone, Copy, Debug)]
pub struct Hazard {
    /// Its name, for example `ipvs-reuse`.
    pub id: &'static str,
    /// The hazard, as a noun phrase.
    pub title: &'static str,
    /// How bad it is where it is armed.
    pub severity: Severity,
    /// What is read, and what is concluded from it.
    pub detect: &'static str,
    /// Why it hurts.
    pub why: &'static str,
    /// A public report of it: an address, or a repository and the number of an issue.
    pub reference: &'static str,
    /// The cause that tracer names where the hazard hits a connection.
    pub cause: Option<&'static str>,
    /// How the detection is tested.
    pub tested: Tested,
    /// Judges a node.
    pub judge: fn(&NodeState) -> State,
}

/// How bad a hazard is. The worst is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It breaks connections.
    Breaks,
    /// It breaks connections under load, or after a change.
    Warns,
    /// Good to know.
    Informs,
}

impl Severity {
    /// Its name in lines and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Breaks => "breaks",
            Self::Warns => "warns",
            Self::Informs => "informs",
        }
    }
}

/// How the detection of a hazard is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// It is armed on a real kernel by this scenario.
    Lab(&'static str),
    /// From a tree of files or a made-up state only.
    Fixture,
}

/// The state of a hazard on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Connections suffer now: a counter moved between two readings, or what was read leaves no other conclusion.
    Hurts(Details),
    /// It will hurt under the condition named in the summary.
    Armed(Details),
    /// What would be needed to judge could not be read, and why.
    Unknown(String),
    /// It does not apply, and why.
    Fine(String),
}

impl State {
    /// Its name in lines and JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hurts(_) => "hurts",
            Self::Armed(_) => "armed",
            Self::Unknown(_) => "unknown",
            Self::Fine(_) => "fine",
        }
    }

    /// Its name after the hazard's, in a sentence.
    #[must_use]
    pub const fn phrase(&self) -> &'static str {
        match self {
            Self::Hurts(_) => "hurts",
            Self::Armed(_) => "is armed",
            Self::Unknown(_) => "is unknown",
            Self::Fine(_) => "is fine",
        }
    }

    /// Its place in the order of output.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Hurts(_) => 0,
            Self::Armed(_) => 1,
            Self::Unknown(_) => 2,
            Self::Fine(_) => 3,
        }
    }

    /// The line about it.
    #[must_use]
    pub fn summary(&self) -> &str {
        match self {
            Self::Hurts(details) | Self::Armed(details) => &details.summary,
            Self::Unknown(why) | Self::Fine(why) => why,
        }
    }

    /// Evidence and advice, where there is something to do.
    #[must_use]
    pub const fn details(&self) -> Option<&Details> {
        match self {
            Self::Hurts(details) | Self::Armed(details) => Some(details),
            Self::Unknown(_) | Self::Fine(_) => None,
        }
    }

    pub(super) fn armed(
        summary: impl Into<String>,
        evidence: impl IntoIterator<Item = String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Armed(Details::new(summary, evidence, advice))
    }

    pub(super) fn hurts(
        summary: impl Into<String>,
        evidence: impl IntoIterator<Item = String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Hurts(Details::new(summary, evidence, advice))
    }

    pub(super) fn fine(why: impl Into<String>) -> Self {
        Self::Fine(why.into())
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown(why.into())
    }
}

/// What was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What is the matter, in one sentence with the real values.
    pub summary: String,
    /// The values that were read, as `NAME = VALUE` or a sentence.
    pub evidence: Vec<String>,
    /// What to do: a command, or a change.
    pub advice: String,
}

impl Details {
    fn new(
        summary: impl Into<String>,
        evidence: impl IntoIterator<Item = String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            summary: summary.into(),
            evidence: evidence.into_iter().collect(),
            advice: advice.into(),
        }
    }
}

/// A hazard and its state.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The hazard.
    pub hazard: &'static Hazard,
    /// Its state.
    pub state: State,
}

/// `NAME = VALUE` of a sysctl.
pub(super) fn setting(node: &NodeState, name: &str) -> String {
    let value = node.sysctls.get(name).unwrap_or("missing");
    format!("{name} = {value}")
}

/// A number with a noun in the right number.
pub(super) fn count(number: u64, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

/// A list of names, of which only the first few are printed.
pub(super) fn list(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The state of a hazard that is judged by counters, where they were read only once.
pub(super) fn read_once(node: &NodeState) -> Option<State> {
    (node.interval_s == 0).then(|| State::unknown("the counters were read only once"))
}
