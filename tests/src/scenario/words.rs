//! The word lists and small values of a scenario file.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail, ensure};
use serde::Deserialize;

/// The fate of a flow, in tracer's words. `pending` is excluded: a scenario waits until its flows are
/// decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// The handshake finished without a retransmission.
    Established,
    /// It finished after a SYN or SYN-ACK was retransmitted.
    Stalled,
    /// The node dropped the SYN or SYN-ACK, or the final ACK was dropped.
    Dropped,
    /// A RST or an ICMP error went back to the client.
    Refused,
    /// The handshake did not finish: no answer, or no ACK from the client.
    Unanswered,
}

impl Fate {
    /// The word that tracer prints.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Stalled => "stalled",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The dataplane that translated a flow's address, in tracer's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataplane {
    /// IPVS.
    Ipvs,
    /// iptables rules, nft or legacy.
    Iptables,
    /// nftables rules.
    Nftables,
    /// Nothing: a listener on the node itself.
    Local,
}

impl Dataplane {
    /// The word that tracer prints.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Local => "local",
        }
    }
}

/// The closed list of causes.
pub const CAUSES: &[&str] = &[
    "ipvs.reuse-dropped",
    "ipvs.nodest-expired",
    "ipvs.dest-unavailable",
    "ipvs.reuse-stale-backend",
    "ipvs.affinity-stale",
    "ipvs.no-service",
    "ipvs.no-destination",
    "ipvs.dest-overloaded",
    "ipvs.conn-alloc-failed",
    "ipvs.defense-drop",
    "ipvs.xmit-no-route",
    "ipvs.xmit-ttl",
    "ipvs.xmit-mtu",
    "ipvs.reply-as-request",
    "ipvs.loopback-client",
    "netfilter.rule-dropped",
    "netfilter.rule-rejected",
    "bpf.dropped",
    "conntrack.table-full",
    "conntrack.insert-failed",
    "conntrack.invalid",
    "conntrack.pinned",
    "nat.port-exhausted",
    "nat.no-address",
    "route.rp-filter",
    "route.martian",
    "route.unreachable",
    "route.forwarding-off",
    "route.loop",
    "route.ttl-exceeded",
    "neigh.unresolved",
    "neigh.wrong-address",
    "policy.local-no-endpoint",
    "dev.tx-dropped",
    "bridge.hairpin-off",
    "tunnel.mtu",
    "tunnel.failed",
    "tcp.bad-checksum",
    "service.not-translated",
    "service.answered-locally",
    "tcp.no-listener",
    "tcp.accept-queue-full",
    "tcp.syn-queue-full",
    "tcp.timestamp-rejected",
    "tcp.timewait-refused",
    "tcp.old-connection",
    "tcp.final-ack-dropped",
    "backend.silent",
    "backend.slow",
    "return.dropped",
    "return.not-translated",
    "return.bypassed",
    "client.silent",
    "unknown",
];

/// A cause from [`CAUSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Cause(Word);

// An alias, because serde's derive would treat a `&'static str` field as borrowed.
type Word = &'static str;

impl Cause {
    /// The word that tracer prints.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.0
    }
}

impl TryFrom<String> for Cause {
    type Error = Error;

    fn try_from(word: String) -> Result<Self, Error> {
        match CAUSES.iter().find(|cause| **cause == word) {
            Some(cause) => Ok(Self(cause)),
            None => bail!("`{word}` is not a cause; the causes are {}", CAUSES.join(", ")),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

/// The IPVS build that a kernel runs with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// Debian's own build.
    #[default]
    Stock,
    /// A build with the port reuse condition of kernels before 5.9.
    Pre59,
}

/// A kernel of the lab: `6.12`, or `5.10/pre-5.9` for one whose IPVS drops the SYN on every port reuse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct KernelName {
    /// Its series, such as `5.10` or, for the newest of a major version, `7`.
    pub series: String,
    /// Its IPVS build.
    pub flavour: Flavour,
}

impl FromStr for KernelName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let (series, flavour) = match name.split_once('/') {
            None => (name, Flavour::Stock),
            Some((series, "pre-5.9")) => (series, Flavour::Pre59),
            Some((_, other)) => bail!("`{other}` is not an IPVS flavour; the only one is `pre-5.9`"),
        };
        let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        ensure!(
            series.split('.').count() <= 2 && series.split('.').all(number),
            "`{name}` is not a kernel: expected a series such as 6.12 or 7, or 5.10/pre-5.9"
        );
        Ok(Self {
            series: series.to_owned(),
            flavour,
        })
    }
}

impl TryFrom<String> for KernelName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flavour {
            Flavour::Stock => f.write_str(&self.series),
            Flavour::Pre59 => write!(f, "{}/pre-5.9", self.series),
        }
    }
}

/// A number, exact or as a range: `2` or `[900, 1500]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "SpanToml")]
pub struct Span {
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or a pair [minimum, maximum]")]
enum SpanToml {
    Exactly(f64),
    Between([f64; 2]),
}

impl TryFrom<SpanToml> for Span {
    type Error = Error;

    fn try_from(span: SpanToml) -> Result<Self, Error> {
        let [min, max] = match span {
            SpanToml::Exactly(number) => [number, number],
            SpanToml::Between(pair) => pair,
        };
        ensure!(min <= max, "the minimum {min} is greater than the maximum {max}");
        Ok(Self { min, max })
    }
}

impl Span {
    /// Whether the number is in the range.
    #[must_use]
    pub fn contains(&self, number: f64) -> bool {
        (self.min..=self.max).contains(&number)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = self;
        if min < max {
            write!(f, "{min} to {max}")
        } else {
            write!(f, "{min}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_names_round_trip() {
        for name in ["5.10", "6.1", "7", "5.10/pre-5.9"] {
            assert_eq!(name.parse::<KernelName>().unwrap().to_string(), name);
        }
        for wrong in ["", "six", "6.12.107", "6.", "5.10/pre", "5.10/", "/pre-5.9"] {
            assert!(wrong.parse::<KernelName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn causes_are_unique() {
        let mut causes = CAUSES.to_vec();
        causes.sort_unstable();
        causes.dedup();
        assert_eq!(causes.len(), CAUSES.len());
    }

    #[test]
    fn spans_include_their_ends() {
        let span = Span {
            min: 900.0,
            max: 1500.0,
        };
        assert!(span.contains(900.0) && span.contains(1500.0));
        assert!(!span.contains(899.9) && !span.contains(1500.1));
        assert_eq!(span.to_string(), "900 to 1500");
    }
}
