//! Address families.

use serde::Deserialize;

/// The family of all addresses in a scenario: clients, node, pods and services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 addresses.
    #[default]
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
}

impl Family {
    /// The suffix of a scenario's name for this family.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Ipv4 => "",
            Self::Ipv6 => "@ipv6",
        }
    }

    /// Splits a scenario's name into the name of its file and the family.
    #[must_use]
    pub fn of(name: &str) -> (&str, Self) {
        match name.strip_suffix(Self::Ipv6.suffix()) {
            Some(file) => (file, Self::Ipv6),
            None => (name, Self::Ipv4),
        }
    }

    /// `ip` or `ip6`: the keyword in `nft`, and the start of the tools' names.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    /// The sysctl that enables forwarding.
    #[must_use]
    pub const fn forwarding(self) -> &'static str {
        match self {
            Self::Ipv4 => "net.ipv4.ip_forward",
            Self::Ipv6 => "net.ipv6.conf.all.forwarding",
        }
    }

    /// The `nft` keyword for ICMP.
    #[must_use]
    pub const fn icmp(self) -> &'static str {
        match self {
            Self::Ipv4 => "icmp",
            Self::Ipv6 => "icmpv6",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_name_splits_into_file_and_family() {
        assert_eq!(Family::of("a-rule"), ("a-rule", Family::Ipv4));
        assert_eq!(Family::of("a-rule@ipv6"), ("a-rule", Family::Ipv6));
    }
}
