//! Which flows are wanted.

use std::net::IpAddr;

use super::{
    args::{Cidr, Select},
    view::Told,
};
use crate::report::summary::Asked;

/// Is the flow one of those that were asked for? Live, the kernel half has left out the ports and clients that were
/// not; a recording has all that were recorded.
pub(super) fn is_wanted(select: &Select, told: &Told<'_>) -> bool {
    // Most of the time everything is, and to name the service takes some.
    let service = || told.facts.service(told.flow);
    has(
        select,
        &Asked {
            client: told.flow.client(),
            node: told.flow.node(),
            service: (!select.service.is_empty()).then(service).flatten(),
            fate: told.fate,
            cause: told.diagnosis.cause,
        },
    )
}

/// Is what is told of one of those that were asked for?
pub(super) fn has(select: &Select, asked: &Asked<'_>) -> bool {
    let (port, client) = (asked.node.port(), asked.client.ip());
    (select.port.is_empty() || select.port.iter().any(|ports| ports.0.contains(&port)))
        && (select.client.is_empty() || select.client.iter().any(|cidr| contains(cidr, client)))
        && (select.fate.is_empty() || select.fate.contains(&asked.fate))
        && (select.cause.is_empty() || asked.cause.is_some_and(|cause| select.cause.contains(&cause)))
        && (select.service.is_empty()
            || select
                .service
                .iter()
                .any(|wanted| Some(wanted.0.as_str()) == asked.service))
}

fn contains(cidr: &Cidr, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 4),
        IpAddr::V6(v6) => (v6.to_bits(), 6),
    };
    let ((network, family), (address, of)) = (bits(cidr.0), bits(address));
    let mask = u128::MAX.checked_shl(128 - u32::from(cidr.1)).unwrap_or_default();
    family == of && network & mask == address & mask
}

#[cfg(test)]
mod tests {

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let contains = |cidr: &str, address: &str| {
            super::contains(
                &cidr.parse().expect("a network"),
                address.parse().expect("an address"),
            )
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.1", "10.0.0.1") && !contains("10.0.0.1", "10.0.0.2"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fd00:1::2") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("::1", "::1") && contains("::/0", "2001:db8::1"));
    }
}
