//! Sysctl values.

use std::fmt;

use serde::Deserialize;

/// The value of a sysctl.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected an integer or a string as a sysctl value")]
pub enum SysctlValue {
    /// A single number.
    Number(i64),
    /// Several numbers, or a word.
    Text(String),
}

impl fmt::Display for SysctlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}
