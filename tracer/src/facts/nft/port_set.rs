//! The ports in a set or map of nf_tables.

use super::{
    Family,
    rule::{Rule, dports::Dports},
};
use crate::facts::{
    netlink::{attribute, attributes},
    port_range::PortRanges,
};

/// Attributes of an element (`NFTA_SET_ELEM_*`), of its key (`NFTA_DATA_*`), and of a list of elements.
const KEY: u16 = 1;
const FLAGS: u16 = 3;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;
const ELEMENTS: u16 = 3;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// Length in bytes of the unit in which the parts of a key are padded.
const UNIT: usize = 4;

/// A set or map of nf_tables whose key has a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Which 4 bytes of the key hold the port.
    pub unit: usize,
}

impl SetName {
    /// The set or map by which a rule matches or translates destination ports.
    #[must_use]
    pub fn of(rule: &Rule) -> Option<Self> {
        let Some(Dports::Set { name, unit }) = &rule.dports else {
            return None;
        };
        Some(Self {
            family: rule.family,
            table: rule.table.clone(),
            name: name.clone(),
            unit: *unit,
        })
    }
}

/// The ports in the keys of the elements, from the kernel's answers. Damaged elements are skipped.
///
/// A set of ranges lists where each one starts and, with a flag, the first key after it, in any order; a range up to the last key
/// has no end. A set of ranges of several parts has start and end in each element.
pub fn parse<'a>(answers: impl Iterator<Item = &'a [u8]>, unit: usize) -> PortRanges {
    let port = |value: &[u8]| -> Option<u16> {
        let part = attribute(value, VALUE)?.get(unit * UNIT..)?;
        part.first_chunk().copied().map(u16::from_be_bytes)
    };
    let mut ranges = PortRanges::default();
    // An end sorts before a start with the same key.
    let mut marks: Vec<(u16, bool)> = Vec::new();
    let lists = answers.filter_map(|answer| attribute(answer.get(4..)?, ELEMENTS));
    for (_, element) in lists.flat_map(attributes) {
        let flags = attribute(element, FLAGS).and_then(super::number).unwrap_or(0);
        let Some(key) = attribute(element, KEY).and_then(port) else {
            continue;
        };
        match attribute(element, KEY_END).and_then(port) {
            Some(end) => ranges.add(key, end),
            None => marks.push((key, flags & INTERVAL_END == 0)),
        }
    }
    marks.sort_unstable();
    if marks.iter().all(|&(_, is_start)| is_start) {
        for (key, _) in marks {
            ranges.add(key, key);
        }
        return ranges;
    }
    let mut open = None;
    for (key, is_start) in marks {
        if let Some(first) = open.take().filter(|_| !is_start) {
            ranges.add(first, key.saturating_sub(1));
        }
        if is_start {
            open = Some(key);
        }
    }
    if let Some(first) = open {
        ranges.add(first, u16::MAX);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).expect("a short value");
        let mut out = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn key(kind: u16, parts: &[u8], port: u16) -> Vec<u8> {
        let value = [parts, &port.to_be_bytes()].concat();
        nla(kind, &nla(VALUE, &value))
    }

    fn answer(elements: &[Vec<u8>]) -> Vec<u8> {
        let elements: Vec<u8> = elements.iter().flat_map(|element| nla(1, element)).collect();
        [vec![2, 0, 0, 0], nla(ELEMENTS, &elements)].concat()
    }

    fn ranges(of: &[(u16, u16)]) -> PortRanges {
        of.iter().copied().collect()
    }

    #[test]
    fn a_set_has_single_ports() {
        let bytes = answer(&[key(KEY, &[], 30_081), key(KEY, &[], 30_080)]);
        let found = parse(std::iter::once(bytes.as_slice()), 0);
        assert_eq!(found, ranges(&[(30_080, 30_080), (30_081, 30_081)]));
    }

    #[test]
    fn a_set_of_ranges_has_starts_and_ends_in_any_order() {
        let end = |port| [key(KEY, &[], port), nla(FLAGS, &1_u32.to_be_bytes())].concat();
        // { 80-89, 90, 65000-65535 }; the kernel starts at the last key, and the ports before the first range are an element.
        let bytes = answer(&[
            key(KEY, &[], 65_000),
            end(91),
            key(KEY, &[], 90),
            end(90),
            key(KEY, &[], 80),
            end(0),
        ]);
        let found = parse(std::iter::once(bytes.as_slice()), 0);
        assert_eq!(found, ranges(&[(80, 89), (90, 90), (65_000, 65_535)]));
    }

    #[test]
    fn a_key_of_several_parts_has_the_port_in_one_of_them() {
        let address = [10, 0, 0, 1];
        let range = [key(KEY, &address, 80), key(KEY_END, &address, 89)].concat();
        let bytes = answer(&[range, key(KEY, &address, 443)]);
        let found = parse(std::iter::once(bytes.as_slice()), 1);
        assert_eq!(found, ranges(&[(80, 89), (443, 443)]));
        // Too short to have that part.
        assert!(parse(std::iter::once(bytes.as_slice()), 2).is_empty());
    }

    #[test]
    fn a_damaged_answer_is_skipped() {
        let bytes = answer(&[key(KEY, &[], 80)]);
        for end in 0..bytes.len() {
            let _ = parse(std::iter::once(&bytes[..end]), 0);
        }
    }
}
