//! How much is watched: few hooks at rest, all of them on suspicion.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The depth at which a run traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Light, and full while something looks wrong.
    Auto,
    /// The hooks that run once per connection, or only when something goes wrong, and the one where packets arrive.
    Light,
    /// Every hook.
    Full,
    /// A depth of a newer version of tracer.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Depth {
    /// The depths that can be chosen.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Light, Self::Full];

    /// The name in options and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Full => "full",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Depth {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|depth| depth.name() == name);
        found.ok_or_else(|| format!("unknown depth {name:?}: use auto, light or full"))
    }
}
