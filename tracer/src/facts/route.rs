//! What the routing tables of a network namespace say about an address.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
                let error = std::io::Error::from_raw_os_error(*errno);
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

#[cfg(test)]
mod tests {
    use super::*;

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
