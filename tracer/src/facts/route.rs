//! Routes, as looked up in a network namespace.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The route to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// A route.
    #[serde(rename = "Way")]
    Found(RouteEntry),
    /// No route. The errno says why; `ENETUNREACH` if no route matches.
    None(i32),
}

/// A route to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// Type of the route (`RTN_*`, uapi/linux/rtnetlink.h): 1 unicast, 2 local.
    pub kind: u8,
    /// The output device.
    pub device: Option<String>,
    /// The next hop; `None` if the address is on-link.
    pub gateway: Option<IpAddr>,
}

impl RouteEntry {
    /// Whether it is an address of the namespace itself.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.kind == 2
    }

    /// Whether it is a unicast route.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        self.kind == 1
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match self {
            Self::Found(route) => route,
            Self::None(errno) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                return write!(f, "none: {error}");
            }
        };
        match kind_name(route.kind) {
            Some(kind) => f.write_str(kind)?,
            None => write!(f, "type {}", route.kind)?,
        }
        if let Some(gateway) = route.gateway {
            write!(f, " via {gateway}")?;
        }
        route
            .device
            .as_ref()
            .map_or(Ok(()), |device| write!(f, " dev {device}"))
    }
}

/// Name of a route type, as printed by `ip route` (`RTN_*`, uapi/linux/rtnetlink.h).
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
    fn the_names_in_a_recording_stay() {
        let route = Route::Found(RouteEntry {
            kind: 1,
            device: None,
            gateway: None,
        });
        assert_eq!(
            serde_json::to_string(&route).expect("JSON"),
            r#"{"Way":{"kind":1,"device":null,"gateway":null}}"#
        );
    }

    #[test]
    fn no_route_shows_the_reason() {
        assert_eq!(
            Route::None(101).to_string(),
            "none: Network is unreachable (os error 101)"
        );
    }

    #[test]
    fn a_route_looks_as_in_ip_route() {
        let route = RouteEntry {
            kind: 1,
            device: Some("eth1".to_owned()),
            gateway: Some(IpAddr::from([10, 0, 0, 254])),
        };
        assert_eq!(Route::Found(route).to_string(), "unicast via 10.0.0.254 dev eth1");
    }
}
