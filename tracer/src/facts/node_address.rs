//! Addresses of a node, and what else it knows about other addresses: gateways and neighbours.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::netlink::attributes;

/// Length in bytes of `struct ifaddrmsg`, which precedes the attributes.
const HEAD: usize = 8;
/// `IFA_ADDRESS` and `IFA_LOCAL` (`uapi/linux/if_addr.h`).
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// The flag of a neighbour entry with a MAC address (`ATF_COM`, `uapi/linux/if_arp.h`).
const COMPLETE: u32 = 2;
/// `RTF_GATEWAY` (uapi/linux/route.h).
const GATEWAY: u32 = 2;

/// An address of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// The address.
    pub ip: IpAddr,
    /// Index of its device.
    pub device: u32,
}

impl NodeAddress {
    /// Reads a message about an address (`RTM_NEWADDR`); `None` if it is damaged.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let device = u32::from_ne_bytes(message.get(4..8)?.try_into().ok()?);
        let ip = |wanted| {
            let (_, value) = attributes(message.get(HEAD..)?).find(|&(kind, _)| kind == wanted)?;
            let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
        };
        // On a link between two ends, IFA_ADDRESS is the other end.
        Some(Self {
            ip: ip(LOCAL).or_else(|| ip(ADDRESS))?,
            device,
        })
    }
}

/// An address of another machine, and the device behind which it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The address.
    pub ip: IpAddr,
    /// Name of the device.
    pub device: String,
}

/// Parses the gateways in `/proc/net/route` (`fib_route_seq_show`, `net/ipv4/fib_trie.c`).
#[must_use]
pub fn gateways(text: &str) -> Vec<Peer> {
    let peer = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (device, gateway) = (words.next()?, words.nth(1)?);
        let flags = u32::from_str_radix(words.next()?, 16).ok()?;
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (flags & GATEWAY != 0).then(|| Peer {
            ip: Ipv4Addr::from(gateway.to_ne_bytes()).into(),
            device: device.to_owned(),
        })
    };
    text.lines().filter_map(peer).collect()
}

/// Parses the resolved neighbours in `/proc/net/arp` (`arp_format_neigh_entry`, `net/ipv4/arp.c`).
#[must_use]
pub fn neighbours(text: &str) -> Vec<Peer> {
    let peer = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[ip, _, flags, _, _, device] = words.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
        Some(Peer {
            ip: ip.parse().ok().filter(|_| flags & COMPLETE != 0)?,
            device: device.to_owned(),
        })
    };
    text.lines().filter_map(peer).collect()
}

/// The API server's address in a kubeconfig, if it is an address and not a name.
#[must_use]
pub fn api_server(kubeconfig: &str) -> Option<IpAddr> {
    let server = kubeconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix("server:"))?
        .trim()
        .trim_matches(|quote| quote == '"' || quote == '\'');
    let authority = server.split_once("://")?.1.split('/').next()?;
    if let Some(v6) = authority.strip_prefix('[') {
        return v6.split(']').next()?.parse().ok();
    }
    authority.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str, device: &str) -> Peer {
        Peer {
            ip: ip.parse().unwrap(),
            device: device.to_owned(),
        }
    }

    #[test]
    fn routes_and_neighbours_are_parsed() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\neth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        assert_eq!(gateways(routes), [peer("10.0.0.1", "eth0")]);
        let table = "IP address HW type Flags HW address Mask Device\n\
            10.0.0.7  0x1  0x2  52:54:00:00:00:07  *  eth0\n10.0.0.8  0x1  0x0  00:00:00:00:00:00  *  eth0\n";
        assert_eq!(neighbours(table), [peer("10.0.0.7", "eth0")]);
    }

    #[test]
    fn a_kubeconfig_names_its_server() {
        let of = |server: &str| api_server(&format!("clusters:\n- cluster:\n    server: {server}\n"));
        assert_eq!(of("https://10.0.0.9:6443"), "10.0.0.9".parse().ok());
        assert_eq!(of("\"https://[fd00::9]:6443\""), "fd00::9".parse().ok());
        assert_eq!(of("https://api.example:6443"), None);
        assert_eq!(api_server(""), None);
    }

    #[test]
    fn an_address_is_the_local_end() {
        let attribute =
            |kind: u16, ip: [u8; 4]| [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &ip].concat();
        let mut message = vec![2, 32, 0, 0];
        message.extend(7_u32.to_ne_bytes());
        message.extend(attribute(ADDRESS, [10, 0, 0, 2]));
        message.extend(attribute(LOCAL, [10, 0, 0, 1]));
        let parsed = NodeAddress::parse(&message).unwrap();
        assert_eq!((parsed.ip, parsed.device), ("10.0.0.1".parse().unwrap(), 7));
        assert_eq!(NodeAddress::parse(&message[..8]), None);
    }
}
