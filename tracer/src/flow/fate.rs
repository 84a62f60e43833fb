//! What became of a flow.

/// The closed list of fates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// The handshake ended and nothing had to be sent again.
    Established,
    /// The handshake ended, but only after a SYN or SYN-ACK was sent again.
    Stalled,
    /// This node discarded the SYN or the SYN-ACK.
    Dropped,
    /// RST or ICMP unreachable went back to the client.
    Refused,
    /// The SYN went on towards the backend and nothing came back.
    Unanswered,
    /// Not decided yet.
    Pending,
}

impl Fate {
    /// The name that users and files see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Stalled => "stalled",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Pending => "pending",
        }
    }

    /// Is it known that the flow did not go well?
    #[must_use]
    pub const fn is_bad(self) -> bool {
        !matches!(self, Self::Established | Self::Pending)
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
