//! The lab's addresses, and the arithmetic on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

/// The node's address towards its clients.
#[must_use]
pub const fn node(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 1)),
    }
}

/// The network of the pods, kube-proxy's `--cluster-cidr`.
#[must_use]
pub const fn pods(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "10.244.0.0/16",
        Family::Ipv6 => "fd00:10:244::/48",
    }
}

/// The network between the node and its clients.
#[must_use]
pub const fn clients(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "10.0.0.0/24",
        Family::Ipv6 => "fd00:10::/64",
    }
}

/// The network of the services' cluster addresses.
#[must_use]
pub const fn services(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "10.96.0.0/16",
        Family::Ipv6 => "fd00:10:96::/112",
    }
}

/// The cluster address of the first service.
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const FIRST_SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10);

/// The cluster address of the `nth` service, counted from 0.
#[must_use]
pub fn cluster_ip(family: Family, nth: usize) -> IpAddr {
    let nth = u32::try_from(nth).unwrap_or_default();
    match family {
        Family::Ipv4 => Ipv4Addr::from_bits(FIRST_SERVICE.to_bits() + nth).into(),
        Family::Ipv6 => Ipv6Addr::from_bits(FIRST_SERVICE_V6.to_bits() + u128::from(nth)).into(),
    }
}

/// Converts an IPv4 address of the lab to the family. The IPv6 address looks similar: 10.0.0.2 becomes
/// `fd00:10::2`, and 10.244.1.2 becomes `fd00:10:244:1::2`.
#[must_use]
pub fn in_family(address: IpAddr, family: Family) -> IpAddr {
    match (address, family) {
        (IpAddr::V4(v4), Family::Ipv6) if v4.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        (IpAddr::V4(v4), Family::Ipv6) => {
            let [a, b, c, d] = v4.octets().map(hex_of_decimal);
            Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, d).into()
        }
        _ => address,
    }
}

/// The number whose hexadecimal digits equal this one's decimal digits.
const fn hex_of_decimal(number: u8) -> u16 {
    let number = number as u16;
    (number / 100) << 8 | (number / 10 % 10) << 4 | (number % 10)
}

/// The tunnel address of a node, in the pods' network. Nodes are counted from 0, the first node.
#[must_use]
pub fn tunnel(family: Family, nth: usize) -> IpAddr {
    let nth = u8::try_from(nth).unwrap_or(u8::MAX - 1);
    in_family(Ipv4Addr::new(10, 244, 0, nth.saturating_add(1)).into(), family)
}

/// Whether the address is valid for a client or another node: 10.0.0.2 to 10.0.0.254.
#[must_use]
pub fn is_client_address(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(v4.octets(), [10, 0, 0, 2..=254]))
}

/// Whether the address is valid for a pod: in [`pods`], and neither a network address nor the node's end.
#[must_use]
pub fn is_pod_address(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if matches!(v4.octets(), [10, 244, _, 2..=254]))
}

/// The pod's own network: its address without the last part.
#[must_use]
pub fn network(pod: IpAddr) -> IpAddr {
    with_last(pod, 0)
}

/// The node's address in the pod's network.
#[must_use]
pub fn gateway(pod: IpAddr) -> IpAddr {
    with_last(pod, 1)
}

/// The prefix length of the network of a pod or of the clients.
#[must_use]
pub const fn prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 64,
    }
}

/// The unspecified address of the same family.
#[must_use]
pub const fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The loopback address of the same family.
#[must_use]
pub const fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// An address for `ip addr add`. IPv6 addresses skip duplicate address detection.
#[must_use]
pub fn of_device(address: IpAddr, prefix: u8) -> String {
    match address {
        IpAddr::V4(_) => format!("{address}/{prefix}"),
        IpAddr::V6(_) => format!("{address}/{prefix} nodad"),
    }
}

/// The length of an address in bits.
#[must_use]
pub const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// A pod's MAC address, derived from its IP address like the CNI plugins do.
#[must_use]
pub fn mac(pod: IpAddr) -> String {
    let [a, b, c, d] = match pod {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn with_last(address: IpAddr, last: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, last).into()
        }
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[4..].fill(0);
            segments[7] = last.into();
            IpAddr::from(segments)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_pod() {
        let pod = "10.244.3.2".parse().unwrap();
        assert_eq!(gateway(pod).to_string(), "10.244.3.1");
        assert_eq!(network(pod).to_string(), "10.244.3.0");
        assert_eq!(mac(pod), "0a:58:0a:f4:03:02");
        assert!(is_pod_address(pod) && !is_pod_address(gateway(pod)) && !is_client_address(pod));
        let pod = "fd00:10:244:3::2".parse().unwrap();
        assert_eq!(gateway(pod).to_string(), "fd00:10:244:3::1");
    }

    #[test]
    fn cluster_addresses_are_consecutive() {
        assert_eq!(cluster_ip(Family::Ipv4, 0).to_string(), "10.96.0.10");
        assert_eq!(cluster_ip(Family::Ipv4, 250).to_string(), "10.96.1.4");
        assert_eq!(cluster_ip(Family::Ipv6, 1).to_string(), "fd00:10:96::11");
    }
}
