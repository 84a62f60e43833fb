//! The result of reading a fact that a node may not have.

use std::io;

use serde::{Deserialize, Serialize};

/// A fact that was read, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading<T> {
    /// The node has no such thing: the subsystem is not loaded, or this kernel does not know it.
    #[default]
    Absent,
    /// It exists but could not be read, and why.
    Failed(String),
    /// It was read.
    Is(T),
}

impl<T> Reading<T> {
    /// The reading of something that exists.
    pub fn of(result: io::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Is(value),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Self::Failed("CAP_NET_ADMIN is missing".to_owned())
            }
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    /// What was read.
    pub const fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Failed(_) => None,
        }
    }

    /// Why it could not be read.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Absent | Self::Is(_) => None,
        }
    }

    /// What was read, changed.
    #[must_use]
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Absent => Reading::Absent,
            Self::Failed(why) => Reading::Failed(why),
            Self::Is(value) => Reading::Is(change(value)),
        }
    }
}
