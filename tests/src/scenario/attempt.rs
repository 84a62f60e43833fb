//! Connection attempts.

use std::fmt;

/// One connection attempt of a scenario; tracer sees it as one flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The client's name.
    pub client: String,
    /// Its source port.
    pub source_port: u16,
    /// The attempt from this port, counted from 1.
    pub occurrence: u16,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            source_port,
            occurrence,
        } = self;
        write!(f, "{client}:{source_port} (attempt {occurrence})")
    }
}
