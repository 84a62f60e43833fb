//! Looks up routes in a network namespace.

use std::{io, net::IpAddr};

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Connection;
use crate::facts::{
    netlink::{attributes, text},
    route::{Route, RouteEntry},
};

/// `RTM_GETROUTE` and `RTM_GETLINK` (uapi/linux/rtnetlink.h).
const GET_ROUTE: u16 = 26;
const GET_LINK: u16 = 18;
/// Length in bytes of `struct rtmsg` and `struct ifinfomsg`, which precede the attributes.
const ROUTE_HEAD: usize = 12;
const LINK_HEAD: usize = 16;
/// `RTA_DST`, `RTA_OIF`, `RTA_GATEWAY`, `IFLA_IFNAME`.
const DESTINATION: u16 = 1;
const DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
const NAME: u16 = 3;

/// Looks up the route to an address in the calling thread's network namespace.
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
    let answers = match netlink.request(GET_ROUTE, &head, &[DefaultNla::new(DESTINATION, bytes)]) {
        Ok(answers) => answers,
        Err(error) => return error.raw_os_error().map(Route::None).ok_or(error),
    };
    let answer = answers
        .first()
        .filter(|answer| answer.len() >= ROUTE_HEAD)
        .ok_or_else(|| io::Error::other("the kernel reported no route"))?;
    let mut route = RouteEntry {
        kind: answer[7],
        device: None,
        gateway: None,
    };
    for (kind, value) in attributes(&answer[ROUTE_HEAD..]) {
        match kind {
            DEVICE => {
                if let Ok(index) = value.try_into().map(u32::from_ne_bytes) {
                    route.device = device_name(&mut netlink, index);
                }
            }
            GATEWAY => route.gateway = ip(value),
            _ => {}
        }
    }
    Ok(Route::Found(route))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn device_name(netlink: &mut Connection, index: u32) -> Option<String> {
    let mut head = [0; LINK_HEAD];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    let links = netlink.request(GET_LINK, &head, &[]).ok()?;
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
        let Route::Found(route) = to(IpAddr::from([127, 0, 0, 1])).unwrap() else {
            panic!("no route to the loopback address");
        };
        assert!(route.is_local());
        assert_eq!(route.device.as_deref(), Some("lo"));
        assert_eq!(Route::Found(route).to_string(), "local dev lo");
    }
}
