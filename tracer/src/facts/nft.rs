//! The chains of `nf_tables`, with their hooks and policies (`uapi/linux/netfilter/nf_tables.h`).

pub mod elements;
pub mod map;
pub mod port_set;
pub mod rule;
pub mod ruleset;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::netlink::{attribute, attributes, text};

/// The address family of a table (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// One device.
    Netdev,
    /// Bridged frames.
    Bridge,
    /// IPv6.
    Ip6,
    /// An unknown family, by number.
    Other(u8),
}

impl From<u8> for Family {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ip,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ip6,
            other => Self::Other(other),
        }
    }
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        match family {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Arp => 3,
            Family::Netdev => 5,
            Family::Bridge => 7,
            Family::Ip6 => 10,
            Family::Other(number) => number,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet => f.write_str("inet"),
            Self::Ip => f.write_str("ip"),
            Self::Arp => f.write_str("arp"),
            Self::Netdev => f.write_str("netdev"),
            Self::Bridge => f.write_str("bridge"),
            Self::Ip6 => f.write_str("ip6"),
            Self::Other(number) => write!(f, "family {number}"),
        }
    }
}

/// The policy of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
}

impl Policy {
    /// The numbers are netfilter's verdicts.
    fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Drop),
            1 => Some(Self::Accept),
            _ => None,
        }
    }
}

/// The hook of a base chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Number of the hook in its family.
    pub hook: u32,
    /// Priority; lower ones run first.
    pub priority: i32,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// The policy, if the kernel reported one.
    pub policy: Option<Policy>,
}

/// A chain of `nf_tables`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its handle.
    pub handle: u64,
    /// The hook; `None` for a chain that rules jump to.
    pub base: Option<Base>,
}

impl Base {
    /// The hook's name, as `nft` prints it.
    #[must_use]
    pub fn hook_name(&self, family: Family) -> &'static str {
        let names: &[&str] = match family {
            Family::Arp => &["input", "output", "forward"],
            Family::Netdev => &["ingress", "egress"],
            Family::Bridge => &[
                "prerouting",
                "input",
                "forward",
                "output",
                "postrouting",
                "brouting",
            ],
            _ => &[
                "prerouting",
                "input",
                "forward",
                "output",
                "postrouting",
                "ingress",
            ],
        };
        names.get(self.hook as usize).unwrap_or(&"unknown")
    }
}

/// The comment in the user data of a rule or an element: attributes with a type (one byte, 0 for a comment) and a length
/// (one byte).
fn comment_in(mut userdata: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        userdata = rest;
    }
    None
}

/// Parses a chain (`NFT_MSG_NEWCHAIN`). `None` if it is damaged.
#[must_use]
pub fn parse_chain(answer: &[u8]) -> Option<Chain> {
    let (head, rest) = answer.split_at_checked(4)?;
    let (mut table, mut name, mut handle) = (None, None, None);
    let (mut hook, mut kind, mut policy) = (None, None, None);
    for (attribute, value) in attributes(rest) {
        match attribute {
            1 => table = Some(text(value)),
            2 => handle = value.try_into().ok().map(u64::from_be_bytes),
            3 => name = Some(text(value)),
            4 => hook = parse_hook(value),
            5 => policy = number(value).and_then(Policy::from_number),
            7 => kind = Some(text(value)),
            _ => {}
        }
    }
    let base = hook.map(|(hook, priority)| Base {
        hook,
        priority,
        kind: kind.unwrap_or_default(),
        policy,
    });
    Some(Chain {
        family: head[0].into(),
        table: table?,
        name: name?,
        handle: handle?,
        base,
    })
}

fn parse_hook(value: &[u8]) -> Option<(u32, i32)> {
    let (mut hook, mut priority) = (None, None);
    for (attribute, value) in attributes(value) {
        match attribute {
            1 => hook = number(value),
            2 => priority = number(value).map(u32::cast_signed),
            _ => {}
        }
    }
    Some((hook?, priority?))
}

/// Parses a number of `nf_tables`, which is big-endian.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Captured answers of a kernel, each preceded by its length.
#[cfg(test)]
fn captured(mut bytes: &'static [u8]) -> impl Iterator<Item = &'static [u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (answer, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        bytes = rest;
        Some(answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn reads_a_base_chain() {
        let hook = [
            attribute(1, &2_u32.to_be_bytes()),
            attribute(2, &(-100_i32).to_be_bytes()),
        ]
        .concat();
        let answer = [
            vec![2, 0, 0, 9],
            attribute(1, b"filter\0"),
            attribute(3, b"FORWARD\0"),
            attribute(2, &7_u64.to_be_bytes()),
            attribute(4 | 0x8000, &hook),
            attribute(5, &0_u32.to_be_bytes()),
            attribute(7, b"filter\0"),
        ]
        .concat();
        let chain = parse_chain(&answer).unwrap();
        assert_eq!(
            (chain.family, chain.table.as_str(), chain.name.as_str()),
            (Family::Ip, "filter", "FORWARD")
        );
        let base = chain.base.unwrap();
        assert_eq!(
            (base.hook_name(Family::Ip), base.priority, base.policy),
            ("forward", -100, Some(Policy::Drop))
        );
        assert_eq!((chain.handle, base.kind.as_str()), (7, "filter"));
    }

    #[test]
    fn reads_a_chain_that_rules_jump_to() {
        let answer = [
            vec![1, 0, 0, 0],
            attribute(1, b"t\0"),
            attribute(3, b"KUBE-FIREWALL\0"),
            attribute(2, &[0; 8]),
        ]
        .concat();
        let chain = parse_chain(&answer).unwrap();
        assert_eq!((chain.family.to_string().as_str(), chain.base), ("inet", None));
    }

    #[test]
    fn a_damaged_chain_is_skipped() {
        assert_eq!(parse_chain(&[2, 0]), None);
        assert_eq!(
            parse_chain(&[vec![2, 0, 0, 0], attribute(1, b"t\0")].concat()),
            None
        );
    }
}
