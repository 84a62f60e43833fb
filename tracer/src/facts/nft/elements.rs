//! The elements of a map of nf_tables: the results of lookups.

use super::rule::{Verdict, registers::Key};
use crate::facts::{
    iptables::Packet,
    netlink::{attribute, attributes},
};

/// Attributes of an element (`NFTA_SET_ELEM_*`), of its key and data (`NFTA_DATA_*`), and of a list of elements.
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const ELEMENTS: u16 = 3;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;

/// All elements of a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    all: Vec<Element>,
    /// Whether its keys are ranges, so that the key of an element is only where one starts or ends.
    is_ranges: bool,
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    /// Its key, each part padded to 4 bytes; `None` for the catch-all element.
    key: Option<Vec<u8>>,
    answer: Answer,
}

/// The content of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A verdict.
    Verdict(Verdict),
    /// Data.
    Data(Vec<u8>),
}

impl Elements {
    /// Parses the elements in the kernel's answers. `None` if one is damaged.
    pub fn parse<'a>(answers: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut out = Self::default();
        for answer in answers {
            let Some(list) = attribute(answer.get(4..)?, ELEMENTS) else {
                continue;
            };
            for (_, element) in attributes(list) {
                let flags = attribute(element, FLAGS).and_then(super::number).unwrap_or(0);
                let is_end = flags & INTERVAL_END != 0;
                out.is_ranges |= is_end || attribute(element, KEY_END).is_some();
                if is_end {
                    continue;
                }
                let key = match attribute(element, KEY) {
                    Some(key) => Some(attribute(key, VALUE)?.to_vec()),
                    None => None,
                };
                let data = attribute(element, DATA)?;
                let answer = match attribute(data, VERDICT) {
                    Some(verdict) => Answer::Verdict(Verdict::parse(verdict)?),
                    None => Answer::Data(attribute(data, VALUE)?.to_vec()),
                };
                out.all.push(Element { key, answer });
            }
        }
        Some(out)
    }

    /// The possible results of a lookup of the packet's key.
    pub fn answers<'a>(&'a self, key: &Key, packet: &Packet<'_>) -> impl Iterator<Item = &'a Answer> {
        let can_be = move |element: &&Element| {
            self.is_ranges
                || element
                    .key
                    .as_ref()
                    .is_none_or(|wanted| key.can_be(wanted, packet))
        };
        self.all.iter().filter(can_be).map(|element| &element.answer)
    }
}
