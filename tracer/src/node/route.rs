//! What the routing tables of a network namespace say about an address.

use std::fmt;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_ROUTE;
use serde::{Deserialize, Serialize};

use super::netlink::{Connection, attributes, text};

/// `RTM_GETROUTE` and `RTM_GETLINK` (uapi/linux/rtnetlink.h).
const GET_ROUTE: u16 = 26;
const GET_LINK: u16 = 18;
/// `struct rtmsg` and `struct ifinfomsg` are what stands before the attributes.
const ROUTE_HEAD: usize = 12;
const LINK_HEAD: usize = 16;
/// `RTA_DST`, `RTA_OIF`, `RTA_GATEWAY`, `IFLA_IFNAME`.
const DESTINATION: u16 = 1;
const DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
const NAME: u16 = 3;

/// The way to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// There is one.
    Way(Way),
    /// There is none; the kernel's errno says why (`ENETUNREACH`: no route at all).
    None(i32),
}

/// See [`Route::Way`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// `RTN_*` (uapi/linux/rtnetlink.h): 1 is a neighbour or a next hop, 2 an address of the namespace itself.
    pub kind: u8,
    /// The device that leads there.
    pub device: Option<String>,
    /// The next hop, if the address is not a neighbour itself.
    pub gateway: Option<IpAddr>,
}

impl Way {
    /// Is it an address of the namespace itself?
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.kind == 2
    }

    /// Is it the address of one host elsewhere?
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        self.kind == 1
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self {
            Self::Way(way) => way,
            Self::None(errno) => {
                let error = io::Error::from_raw_os_error(*errno);
                return write!(f, "none: {error}");
            }
        };
        match kind_name(way.kind) {
            Some(kind) => f.write_str(kind)?,
            None => write!(f, "type {}", way.kind)?,
        }
        if let Some(gateway) = way.gateway {
            write!(f, " via {gateway}")?;
        }
        way.device
            .as_ref()
            .map_or(Ok(()), |device| write!(f, " dev {device}"))
    }
}

/// Name of a kind of route, as `ip route` prints it (`RTN_*`, uapi/linux/rtnetlink.h).
#[must_use]
pub const fn kind_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        1 => "unicast",
        2 => "local",
        3 => "broadcast",
        4 => "anycast",
        5 => "multicast",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        9 => "throw",
        _ => return None,
    })
}

/// Asks for the way to an address, in the calling thread's network namespace.
pub fn to(address: IpAddr) -> io::Result<Route> {
    let mut netlink = Connection::open(NETLINK_ROUTE)?;
    let mut head = [0; ROUTE_HEAD];
    let bytes = match address {
        IpAddr::V4(v4) => {
            (head[0], head[1]) = (2, 32);
            v4.octets().to_vec()
        }
        IpAddr::V6(v6) => {
            (head[0], head[1]) = (10, 128);
            v6.octets().to_vec()
        }
    };
    let answers = match netlink.ask(GET_ROUTE, &head, &[DefaultNla::new(DESTINATION, bytes)]) {
        Ok(answers) => answers,
        Err(error) => return error.raw_os_error().map(Route::None).ok_or(error),
    };
    let answer = answers
        .first()
        .filter(|answer| answer.len() >= ROUTE_HEAD)
        .ok_or_else(|| io::Error::other("the kernel told no route"))?;
    let mut way = Way {
        kind: answer[7],
        device: None,
        gateway: None,
    };
    for (kind, value) in attributes(&answer[ROUTE_HEAD..]) {
        match kind {
            DEVICE => {
                if let Ok(index) = value.try_into().map(u32::from_ne_bytes) {
                    way.device = device_name(&mut netlink, index);
                }
            }
            GATEWAY => way.gateway = ip(value),
            _ => {}
        }
    }
    Ok(Route::Way(way))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn device_name(netlink: &mut Connection, index: u32) -> Option<String> {
    let mut head = [0; LINK_HEAD];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    let links = netlink.ask(GET_LINK, &head, &[]).ok()?;
    let link = links.first()?.get(LINK_HEAD..)?;
    attributes(link)
        .find(|&(kind, _)| kind == NAME)
        .map(|(_, value)| text(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_local() {
        let Route::Way(way) = to(IpAddr::from([127, 0, 0, 1])).unwrap() else {
            panic!("there is a way to oneself");
        };
        assert!(way.is_local());
        assert_eq!(way.device.as_deref(), Some("lo"));
        assert_eq!(Route::Way(way).to_string(), "local dev lo");
    }

    #[test]
    fn no_way_says_why() {
        assert_eq!(
            Route::None(101).to_string(),
            "none: Network is unreachable (os error 101)"
        );
    }

    #[test]
    fn a_way_is_told_as_ip_route_does() {
        let way = Way {
            kind: 1,
            device: Some("eth1".to_owned()),
            gateway: Some(IpAddr::from([10, 0, 0, 254])),
        };
        assert_eq!(Route::Way(way).to_string(), "unicast via 10.0.0.254 dev eth1");
    }
}
