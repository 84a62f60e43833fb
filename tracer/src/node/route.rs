//! Looks up routes in a network namespace.

use std::{fs, io, net::IpAddr};

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

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
/// `RTA_DST`, `RTA_SRC`, `RTA_IIF`, `RTA_OIF`, `RTA_GATEWAY`, `IFLA_IFNAME`.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const INPUT: u16 = 3;
const DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
const NAME: u16 = 3;
/// `RTM_GETRULE`, and the length in bytes of `struct fib_rule_hdr` (`uapi/linux/fib_rules.h`).
const GET_RULE: u16 = 34;
const RULE_HEAD: usize = 12;
/// `FR_ACT_TO_TBL`.
const RULE_TO_TABLE: u8 = 1;
/// `FRA_IIFNAME` and `FRA_FWMARK`.
const RULE_INPUT: u16 = 3;
const RULE_MARK: u16 = 10;
/// `FRA_TUN_ID`, `FRA_OIFNAME`, `FRA_L3MDEV`, `FRA_UID_RANGE`, `FRA_IP_PROTO`, `FRA_SPORT_RANGE`, `FRA_DPORT_RANGE`.
const RULE_OTHERS: [u16; 7] = [12, 17, 19, 20, 22, 23, 24];
/// Index of the loopback device in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// What the kernel looks up for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The destination of the lookup.
    pub to: IpAddr,
    /// The source of the lookup.
    pub from: Option<IpAddr>,
    /// Index of the device that the packet arrived on; `None` for a packet that the namespace itself sends.
    pub input: Option<u32>,
    /// Whether it is the lookup of the source address with which the reverse path filter compares (`__fib_validate_source`,
    /// `net/ipv4/fib_frontend.c`): the source of this lookup need not be an address of the namespace.
    pub is_reverse: bool,
}

/// What the FIB rules of a network namespace look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Selectors {
    /// Source, destination or input device.
    addresses: bool,
    /// The packet's mark.
    mark: bool,
    /// Anything else: ports, users, tunnels.
    others: bool,
}

/// Looks up a route in the calling thread's network namespace, as the kernel did for the packet. `None` if the rules of the
/// namespace look at something that is not known.
pub fn look_up(lookup: &Lookup) -> io::Result<Option<Route>> {
    let mut netlink = Connection::open(NETLINK_ROUTE)?;
    let rules = selectors(&mut netlink, lookup.to.is_ipv6())?;
    let plain = Lookup {
        from: None,
        input: None,
        is_reverse: false,
        ..*lookup
    };
    // Without rules of its own, a namespace has one route to each address.
    if rules == Selectors::default() {
        return request(&mut netlink, &plain).map(Some);
    }
    // The mark of the packet is not known. The reverse path filter looks at it only if it is told to.
    let needs_mark = rules.mark && (!lookup.is_reverse || is_mark_valid());
    if rules.others || needs_mark {
        return Ok(None);
    }
    if !lookup.is_reverse {
        return request(&mut netlink, lookup).map(Some);
    }
    // From an address of the namespace, it is the lookup of a packet that the namespace sends. From any other, it is that of a
    // packet from the loopback device, unless that device has a filter too.
    let sent = request(&mut netlink, lookup)?;
    if sent != Route::None(Errno::EINVAL as i32) {
        return Ok(Some(sent));
    }
    let forwarded = Lookup {
        input: Some(LOOPBACK),
        ..*lookup
    };
    let route = request(&mut netlink, &forwarded)?;
    let is_refused =
        matches!(route, Route::None(errno) if [Errno::EINVAL as i32, Errno::EXDEV as i32].contains(&errno));
    Ok((!is_refused).then_some(route))
}

/// Whether the reverse path filter looks at marks (`src_valid_mark`) on any device.
fn is_mark_valid() -> bool {
    let devices = fs::read_dir("/proc/sys/net/ipv4/conf")
        .into_iter()
        .flatten()
        .flatten();
    devices
        .map(|device| device.path().join("src_valid_mark"))
        .any(|path| fs::read_to_string(path).is_ok_and(|value| value.trim() != "0"))
}

/// What the rules look at. The rules that every namespace has look at nothing.
fn selectors(netlink: &mut Connection, is_v6: bool) -> io::Result<Selectors> {
    let mut head = [0; RULE_HEAD];
    head[0] = if is_v6 { 10 } else { 2 };
    let mut out = Selectors::default();
    for rule in netlink.list(GET_RULE, &head, &[])? {
        let Some((head, body)) = rule.split_at_checked(RULE_HEAD) else {
            continue;
        };
        // Prefix lengths of destination and source, TOS, action.
        out.addresses |= head[1] != 0 || head[2] != 0;
        out.others |= head[3] != 0;
        out.addresses |= head[7] != RULE_TO_TABLE;
        for (kind, _) in attributes(body) {
            match kind {
                RULE_INPUT => out.addresses = true,
                RULE_MARK => out.mark = true,
                kind if RULE_OTHERS.contains(&kind) => out.others = true,
                _ => {}
            }
        }
    }
    Ok(out)
}

/// Sends one lookup to the kernel, and returns the result.
fn request(netlink: &mut Connection, lookup: &Lookup) -> io::Result<Route> {
    let mut head = [0; ROUTE_HEAD];
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (family, bits) = if lookup.to.is_ipv6() { (10, 128) } else { (2, 32) };
    (head[0], head[1]) = (family, bits);
    let mut wanted = vec![DefaultNla::new(DESTINATION, bytes(lookup.to))];
    if let Some(from) = lookup.from {
        head[2] = bits;
        wanted.push(DefaultNla::new(SOURCE, bytes(from)));
    }
    if let Some(index) = lookup.input {
        wanted.push(DefaultNla::new(INPUT, index.to_ne_bytes().to_vec()));
    }
    let answers = match netlink.request(GET_ROUTE, &head, &wanted) {
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
                    route.device = device_name(netlink, index);
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
        let lookup = Lookup {
            to: IpAddr::from([127, 0, 0, 1]),
            from: None,
            input: None,
            is_reverse: false,
        };
        let Some(Route::Found(route)) = look_up(&lookup).unwrap() else {
            panic!("no route to the loopback address");
        };
        assert!(route.is_local());
        assert_eq!(route.device.as_deref(), Some("lo"));
        assert_eq!(Route::Found(route).to_string(), "local dev lo");
    }
}
