//! IP sets of ports, such as kube-proxy keeps in its IPVS mode.

use std::{collections::BTreeSet, io};

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    modules::Modules,
    netlink::{Connection, attributes},
};

/// `NFNL_SUBSYS_IPSET` and `IPSET_CMD_LIST`.
const LIST: u16 = 6 << 8 | 7;
/// The oldest protocol that kernels of today speak.
const PROTOCOL: u8 = 6;
/// Attributes (`uapi/linux/netfilter/ipset/ip_set.h`).
const ATTR_PROTOCOL: u16 = 1;
const ATTR_NAME: u16 = 2;
const ATTR_ELEMENTS: u16 = 8;
const ATTR_PORT: u16 = 4;

/// The ports in a set of the calling thread's network namespace (`bitmap:port`); `None` if there is no such set.
pub fn ports(name: &str) -> io::Result<Option<BTreeSet<u16>>> {
    // Asking where there are no sets would make the kernel load them.
    if !Modules::read()?.has("ip_set") {
        return Ok(None);
    }
    let attributes = [
        DefaultNla::new(ATTR_PROTOCOL, vec![PROTOCOL]),
        DefaultNla::new(ATTR_NAME, [name.as_bytes(), &[0]].concat()),
    ];
    match Connection::open(NETLINK_NETFILTER)?.list(LIST, &[0; 4], &attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        answers => Ok(Some(parse(&answers?))),
    }
}

fn parse(answers: &[Vec<u8>]) -> BTreeSet<u16> {
    answers
        .iter()
        .filter_map(|answer| value(answer.get(4..)?, ATTR_ELEMENTS))
        .flat_map(|elements| attributes(elements).filter_map(|(_, element)| value(element, ATTR_PORT)))
        .filter_map(|port| Some(u16::from_be_bytes(port.try_into().ok()?)))
        .collect()
}

fn value(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|&(found, _)| found == kind)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernel 6.18 answered for a set with two ports, from the head of its elements on.
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

    #[test]
    fn asks_the_running_kernel() {
        match ports("no such set") {
            Ok(found) => assert_eq!(found, None),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
