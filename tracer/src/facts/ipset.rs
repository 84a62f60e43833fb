//! Parses IP sets of ports, for example those of kube-proxy's IPVS mode.

use std::collections::BTreeSet;

use super::{
    netlink::{attribute, text},
    node_state::IpSet,
};

/// Attributes (`uapi/linux/netfilter/ipset/ip_set.h`).
const ATTR_ELEMENTS: u16 = 8;
const ATTR_PORT: u16 = 4;

/// Parses the ports in the kernel's answers to a request for a set (`bitmap:port`).
#[must_use]
pub fn parse(answers: &[Vec<u8>]) -> BTreeSet<u16> {
    answers
        .iter()
        .filter_map(|answer| attribute(answer.get(4..)?, ATTR_ELEMENTS))
        .flat_map(|elements| {
            super::netlink::attributes(elements).filter_map(|(_, element)| attribute(element, ATTR_PORT))
        })
        .filter_map(|port| Some(u16::from_be_bytes(port.try_into().ok()?)))
        .collect()
}

/// `IPSET_ATTR_SETNAME`, `_TYPENAME` and `_REVISION`.
const ATTR_NAME: u16 = 2;
const ATTR_TYPE: u16 = 3;
const ATTR_REVISION: u16 = 4;

/// Parses the description of a set in an answer to a request for sets; `None` if it has none.
#[must_use]
pub fn header(answer: &[u8]) -> Option<IpSet> {
    let body = answer.get(4..)?;
    Some(IpSet {
        name: text(attribute(body, ATTR_NAME)?),
        kind: text(attribute(body, ATTR_TYPE)?),
        revision: *attribute(body, ATTR_REVISION)?.first()?,
        newest: None,
    })
}

/// Parses the newest revision in the answer to a request for a type of set.
#[must_use]
pub fn newest_revision(answer: &[u8]) -> Option<u8> {
    attribute(answer.get(4..)?, ATTR_REVISION)?.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of kernel 6.18 for a set with two ports, from its elements on.
    const ELEMENTS: [u8; 28] = [
        0x1c, 0, 8, 0x80, 0x0c, 0, 7, 0x80, 6, 0, 4, 0x40, 0x75, 0x80, 0, 0, 0x0c, 0, 7, 0x80, 6, 0, 4, 0x40,
        0x76, 0xeb, 0, 0,
    ];

    #[test]
    fn reads_ports() {
        let answer = [&[2, 0, 0, 0, 5, 0, 1, 0, 6, 0, 0, 0], &ELEMENTS[..]].concat();
        assert_eq!(parse(&[answer]), BTreeSet::from([30_080, 30_443]));
        assert_eq!(parse(&[vec![2, 0, 0, 0]]), BTreeSet::new());
    }
}
