//! The state of a hook, as reports show it and recordings hold it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a hook is attached, and if not, why.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The kernel has the function, but tracer cannot use it.
    Disabled,
    /// The hook is attached.
    Attached,
    /// The hook can be attached, and is while it is needed.
    OnDemand,
    /// The kernel does not have the function, for example because its module is not loaded.
    Missing,
    /// The hook could be attached, but would add nothing on this kernel.
    Unneeded,
    /// A state of a newer version of tracer.
    #[default]
    #[serde(other)]
    Unknown,
}

impl State {
    /// The name that users see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Attached => "attached",
            Self::OnDemand => "on-demand",
            Self::Missing => "missing",
            Self::Unneeded => "unneeded",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the hook serves its purpose, now or once it is needed.
    #[must_use]
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Attached | Self::OnDemand | Self::Unneeded)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A hook and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HookState {
    /// Kernel function or tracepoint.
    pub name: String,
    /// `tracepoint`, `kprobe` or `kprobe+kretprobe`.
    pub kind: String,
    /// Whether it is attached.
    pub state: State,
    /// Why it is not attached.
    pub why: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_written_by_their_names() {
        for state in [
            State::Disabled,
            State::Attached,
            State::OnDemand,
            State::Missing,
            State::Unneeded,
        ] {
            let written = serde_json::to_string(&state).expect("a name");
            assert_eq!(written, format!("\"{}\"", state.name()));
            assert_eq!(serde_json::from_str::<State>(&written).expect("a state"), state);
        }
    }

    #[test]
    fn a_state_of_a_newer_version_is_readable() {
        let hook: HookState =
            serde_json::from_str(r#"{"name":"tcp_connect","state":"sampled"}"#).expect("a hook");
        assert_eq!(hook.state, State::Unknown);
        assert!(!hook.state.is_available());
    }
}
