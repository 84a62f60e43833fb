//! The destination ports that a rule matches, other than a single one.

use serde::{Deserialize, Serialize};

use super::{
    super::number,
    conditions::{self, EQUAL},
    registers::Registers,
};
use crate::facts::{netlink::attribute, port_range::PortRanges, translation::Translation};

/// `NFT_CMP_LTE` and `NFT_CMP_GTE`.
const LESS_OR_EQUAL: u32 = 3;
const GREATER_OR_EQUAL: u32 = 5;

/// The destination ports that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dports {
    /// These ranges.
    Ranges(PortRanges),
    /// The ports in a set, or in the keys of a map.
    Set {
        /// Its name.
        name: String,
        /// Which 4 bytes of its key hold the port.
        unit: usize,
    },
}

/// Collects the ports from a rule's expressions.
#[derive(Default)]
pub(super) struct DportReader {
    found: Option<Dports>,
    /// The first port that the rule matches.
    first: Option<u16>,
    /// A map that was looked up by port, and which 4 bytes of its key hold the port.
    map: Option<(String, usize)>,
}

impl DportReader {
    /// `port_in` is the register that holds the destination port.
    pub(super) fn add(&mut self, name: &str, data: &[u8], port_in: Option<u32>, registers: &Registers) {
        let field = |kind| attribute(data, kind).and_then(number);
        let is_port = port_in.is_some() && field(1) == port_in;
        match name {
            // The register, the operation, the data.
            "cmp" if is_port && field(2) == Some(GREATER_OR_EQUAL) => self.first = conditions::port(data, 3),
            "cmp" if is_port && field(2) == Some(LESS_OR_EQUAL) => {
                self.add_range(self.first, conditions::port(data, 3));
            }
            // The register, the operation, the first and the last value.
            "range" if is_port && field(2) == Some(EQUAL) => {
                self.add_range(conditions::port(data, 3), conditions::port(data, 4));
            }
            // The set, the source register, the destination register, the flags: 1 if the rule matches what is not in the
            // set.
            "lookup" => {
                let set = attribute(data, 1).map(crate::facts::netlink::text);
                let Some((name, unit)) = set.zip(registers.key(field(2)).dport_unit()) else {
                    return;
                };
                match (field(3), field(5).unwrap_or(0)) {
                    (None, 0) => self.found = Some(Dports::Set { name, unit }),
                    (Some(1..), _) => self.map = Some((name, unit)),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn add_range(&mut self, first: Option<u16>, last: Option<u16>) {
        if let (Some(first), Some(last)) = (first, last) {
            self.add_ranges([(first, last)].into_iter().collect());
        }
    }

    /// Adds the ports of a match of iptables.
    pub(super) fn add_ranges(&mut self, ranges: PortRanges) {
        if ranges.names_ports() {
            self.found = Some(Dports::Ranges(ranges));
        }
    }

    /// The ports: those of a condition or, without one, those of the map that the rule translates by.
    pub(super) fn finish(self, translation: Option<&Translation>) -> Option<Dports> {
        let by_map = || {
            let (name, unit) = self.map?;
            let is_it = matches!(translation, Some(Translation::Map(lookup)) if lookup.map == name);
            is_it.then_some(Dports::Set { name, unit })
        };
        self.found.or_else(by_map)
    }
}
