//! The targets of DNAT rules, in every form in which the kernel stores them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use bytes::Buf as _;
use serde::{Deserialize, Serialize};

/// How a rule translates the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Translation {
    /// To one of these.
    To {
        /// Addresses; `None` if the address stays.
        addresses: Option<RangeInclusive<IpAddr>>,
        /// Ports; `None` if the port stays.
        ports: Option<RangeInclusive<u16>>,
    },
    /// To an address of the machine itself (`REDIRECT`).
    Here,
    /// To the target that is looked up in a map.
    Map(Lookup),
    /// To a target that tracer does not understand.
    Unknown,
}

/// A translation whose target is looked up in a map of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The map, in the table of the rule.
    pub map: String,
    /// First and last address; `None` if the address stays.
    pub addresses: Option<[Operand; 2]>,
    /// First and last port; `None` if the port stays.
    pub ports: Option<[Operand; 2]>,
}

/// Where a number of a [`Lookup`] comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand {
    /// From the rule.
    Constant(Vec<u8>),
    /// From the data of the map's element: from this byte on.
    Data(usize),
}

impl Operand {
    fn bytes<'a>(&'a self, data: &'a [u8], length: usize) -> Option<&'a [u8]> {
        match self {
            Self::Constant(value) => Some(value),
            Self::Data(from) => data.get(*from..from.checked_add(length)?),
        }
    }
}

impl Lookup {
    /// The translation given by an element with this data. `is_v6` is the family of the rule's table or, in an `inet` table,
    /// of the translation.
    #[must_use]
    pub fn of_element(&self, data: &[u8], is_v6: bool) -> Translation {
        let address = |operand: &Operand| -> Option<IpAddr> {
            if is_v6 {
                <[u8; 16]>::try_from(operand.bytes(data, 16)?)
                    .map(IpAddr::from)
                    .ok()
            } else {
                <[u8; 4]>::try_from(operand.bytes(data, 4)?)
                    .map(IpAddr::from)
                    .ok()
            }
        };
        let port = |operand: &Operand| operand.bytes(data, 2)?.try_into().map(u16::from_be_bytes).ok();
        let read = || {
            let addresses = match &self.addresses {
                Some([first, last]) => Some(address(first)?..=address(last)?),
                None => None,
            };
            let ports = match &self.ports {
                Some([low, high]) => Some(port(low)?..=port(high)?),
                None => None,
            };
            Some(Translation::To { addresses, ports })
        };
        read().unwrap_or(Translation::Unknown)
    }
}

impl Translation {
    /// Whether it can translate a packet to `from` to `backend`.
    #[must_use]
    pub fn can_lead(&self, from: SocketAddr, backend: SocketAddr) -> bool {
        match self {
            Self::To { addresses, ports } => {
                let address = addresses
                    .as_ref()
                    .map_or(from.ip() == backend.ip(), |range| range.contains(&backend.ip()));
                let port = ports.as_ref().map_or(from.port() == backend.port(), |range| {
                    range.contains(&backend.port())
                });
                address && port
            }
            Self::Here => from.ip() == backend.ip(),
            Self::Map(_) | Self::Unknown => true,
        }
    }

    /// Parses the target of an iptables rule. `None` if it does not translate the destination.
    #[must_use]
    pub fn of_target(name: &str, revision: u8, info: &[u8], is_v6: bool) -> Option<Self> {
        let range = match (name, revision) {
            ("DNAT", 0) if !is_v6 => old_range(info),
            // Revision 2 has one more member, the base for port shifting.
            ("DNAT", 1 | 2) => range(info, is_v6),
            ("DNAT" | "NETMAP", _) => None,
            ("REDIRECT", _) => Some(Self::Here),
            _ => return None,
        };
        Some(range.unwrap_or(Self::Unknown))
    }
}

/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED` (`uapi/linux/netfilter/nf_nat.h`).
const MAPS_ADDRESSES: u32 = 1;
const MAPS_PORTS: u32 = 2;

/// `struct nf_nat_range` and `nf_nat_range2`: flags, two addresses, two ports in network byte order.
fn range(mut info: &[u8], is_v6: bool) -> Option<Translation> {
    let flags = info.try_get_u32_ne().ok()?;
    let (first, last) = (info.try_get_u128().ok()?, info.try_get_u128().ok()?);
    let (low, high) = (info.try_get_u16().ok()?, info.try_get_u16().ok()?);
    let address = |bits: u128| -> IpAddr {
        if is_v6 {
            Ipv6Addr::from_bits(bits).into()
        } else {
            // An IPv4 address is the first of four words.
            let [a, b, c, d, ..] = bits.to_be_bytes();
            Ipv4Addr::new(a, b, c, d).into()
        }
    };
    Some(translation(flags, address(first)..=address(last), low..=high))
}

/// `struct nf_nat_ipv4_multi_range_compat`: the number of ranges, which is always 1, then flags, two addresses, two ports.
fn old_range(mut info: &[u8]) -> Option<Translation> {
    let _ = info.try_get_u32_ne().ok()?;
    let flags = info.try_get_u32_ne().ok()?;
    let (first, last) = (info.try_get_u32().ok()?, info.try_get_u32().ok()?);
    let (low, high) = (info.try_get_u16().ok()?, info.try_get_u16().ok()?);
    let address = |bits| IpAddr::from(Ipv4Addr::from_bits(bits));
    Some(translation(flags, address(first)..=address(last), low..=high))
}

fn translation(flags: u32, addresses: RangeInclusive<IpAddr>, ports: RangeInclusive<u16>) -> Translation {
    Translation::To {
        addresses: (flags & MAPS_ADDRESSES != 0).then_some(addresses),
        ports: (flags & MAPS_PORTS != 0).then_some(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address with a port")
    }

    fn leads(translation: &Translation, backend: &str) -> bool {
        translation.can_lead(at("10.0.0.1:30080"), at(backend))
    }

    /// Data of a `DNAT` target: flags, addresses, ports, and the base of revision 2.
    fn info(flags: u32, addresses: [[u8; 4]; 2], ports: [u16; 2]) -> Vec<u8> {
        let mut out = flags.to_ne_bytes().to_vec();
        for address in addresses {
            out.extend(address);
            out.extend([0; 12]);
        }
        out.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        out.extend([0; 2]);
        out
    }

    #[test]
    fn a_target_translates_to_its_address_and_port() {
        let pod = info(3, [[10, 244, 1, 2]; 2], [8080; 2]);
        let pod = Translation::of_target("DNAT", 2, &pod, false).expect("a translation");
        assert!(leads(&pod, "10.244.1.2:8080"));
        for other in ["10.244.1.3:8080", "10.244.1.2:8081"] {
            assert!(!leads(&pod, other), "{other}");
        }
        let range = info(1, [[10, 244, 1, 2], [10, 244, 1, 9]], [0; 2]);
        let range = Translation::of_target("DNAT", 1, &range, false).expect("a translation");
        assert!(leads(&range, "10.244.1.5:30080") && !leads(&range, "10.244.1.5:8080"));
    }

    #[test]
    fn revision_0_is_understood() {
        let mut old = 1_u32.to_ne_bytes().to_vec();
        old.extend(3_u32.to_ne_bytes());
        old.extend([10, 244, 1, 2, 10, 244, 1, 2, 0x1f, 0x90, 0x1f, 0x90]);
        let old = Translation::of_target("DNAT", 0, &old, false).expect("a translation");
        assert!(leads(&old, "10.244.1.2:8080") && !leads(&old, "10.244.1.3:8080"));
    }

    #[test]
    fn an_unknown_target_may_translate_to_anything() {
        for (name, info) in [("DNAT", &[][..]), ("NETMAP", &[0; 40][..])] {
            let unknown = Translation::of_target(name, 9, info, false);
            assert_eq!(unknown, Some(Translation::Unknown));
            assert!(leads(&Translation::Unknown, "10.244.1.2:8080"));
        }
        assert_eq!(Translation::of_target("MASQUERADE", 0, &[], false), None);
        assert!(leads(&Translation::Here, "10.0.0.1:8080") && !leads(&Translation::Here, "10.244.1.2:8080"));
    }
}
