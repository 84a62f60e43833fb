//! The fate of a flow.

macro_rules! fates {
    ($($id:ident = $name:literal, $meaning:literal;)*) => {
        /// The closed list of fates.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, schemars::JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum Fate {
            $(
                #[doc = concat!("`", $name, "`: ", $meaning, ".")]
                $id,
            )*
        }

        impl Fate {
            /// Every fate, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// The name on screen, in files and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }

            /// The meaning, in the one wording for the screen's help, README and reports.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$id => $meaning,)*
                }
            }
        }
    };
}

fates! {
    Established = "established", "the handshake finished without a retransmission";
    Stalled = "stalled", "the handshake finished, but only after a retransmitted SYN or SYN-ACK";
    Dropped = "dropped", "this node dropped the SYN or SYN-ACK, or the final ACK was dropped";
    Refused = "refused", "RST or an ICMP error went back to the client";
    Unanswered = "unanswered", "the handshake did not finish: no answer, or no ACK from the client";
    Pending = "pending", "not decided yet";
}

impl Fate {
    /// Whether the fate itself is a failure. Whether a flow failed depends on its cause too: see `diagnose::is_failure`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_name() {
        for fate in Fate::ALL {
            assert_eq!(serde_json::to_value(fate).expect("JSON"), fate.name());
        }
    }
}
