//! The verdict maps of nf_tables.

use serde::{Deserialize, Serialize};

use super::{Family, rule::Verdict};
use crate::facts::netlink::{attribute, attributes};

/// A verdict map, or part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its elements.
    pub elements: Vec<Element>,
}

/// An element of a verdict map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// The key as stored by the kernel: each part padded to 4 bytes, numbers in network byte order.
    pub key: Vec<u8>,
    /// The verdict on packets with this key.
    pub verdict: Verdict,
    /// Its comment.
    pub comment: Option<String>,
}

impl Map {
    /// The element for TCP packets to this port, if the keys are protocol and port.
    #[must_use]
    pub fn of_tcp_port(&self, port: u16) -> Option<&Element> {
        self.elements
            .iter()
            .find(|element| element.tcp_port() == Some(port))
    }
}

impl Element {
    /// The port, if the key is TCP and a port (`inet_proto . inet_service`).
    #[must_use]
    pub fn tcp_port(&self) -> Option<u16> {
        match self.key.as_slice() {
            [6, 0, 0, 0, high, low, 0, 0] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    /// The port in these 4 bytes of the key.
    #[must_use]
    pub fn port_at(&self, unit: usize) -> Option<u16> {
        let part = self.key.get(unit * 4..)?.first_chunk().copied();
        part.map(u16::from_be_bytes)
    }
}

/// Parses the elements in the kernel's answers. Damaged elements and those without a verdict are skipped.
pub fn parse<'a>(answers: impl Iterator<Item = &'a [u8]>) -> Vec<Element> {
    answers
        .filter_map(|answer| attribute(answer.get(4..)?, 3))
        .flat_map(|elements| attributes(elements).filter_map(|(_, element)| parse_element(element)))
        .collect()
}

fn parse_element(element: &[u8]) -> Option<Element> {
    Some(Element {
        key: attribute(attribute(element, 1)?, 1)?.to_vec(),
        verdict: Verdict::parse(attribute(attribute(element, 2)?, 2)?)?,
        comment: attribute(element, 6).and_then(super::comment_in),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::captured, *};

    fn read(answers: &'static [u8]) -> Map {
        Map {
            family: Family::Ip,
            table: "kube-proxy".to_owned(),
            name: String::new(),
            elements: parse(captured(answers)),
        }
    }

    #[test]
    fn reads_verdicts_by_port() {
        let map = read(include_bytes!("captured/no-endpoint-nodeports.bin"));
        let drop = map.of_tcp_port(30_081).expect("an element");
        assert_eq!(
            (drop.verdict.clone(), drop.comment.as_deref()),
            (Verdict::Drop, Some("shop/api"))
        );
        let reject = map.of_tcp_port(30_082).expect("an element");
        assert_eq!(
            (reject.verdict.chain(), reject.comment.as_deref()),
            (Some("reject-chain"), Some("shop/gone:http"))
        );
        assert_eq!(map.of_tcp_port(30_080), None);
    }

    #[test]
    fn reads_the_chain_of_a_verdict() {
        let map = read(include_bytes!("captured/service-nodeports.bin"));
        let found = map.of_tcp_port(30_080).expect("an element");
        assert_eq!(
            (found.verdict.chain(), found.comment.as_deref()),
            (Some("external-HVFWP5L3-shop/web/tcp/http"), None)
        );
    }

    #[test]
    fn a_damaged_element_is_skipped() {
        let bytes = include_bytes!("captured/no-endpoint-nodeports.bin");
        for answer in captured(bytes) {
            for end in 0..answer.len() {
                let _ = parse(std::iter::once(&answer[..end]));
            }
        }
    }
}
