//! Looks up routes in a network namespace.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::netlink::Connection;
use crate::facts::{
    netlink::{attributes, text},
    route::{Route, RouteEntry},
    route_lookup::RouteLookup,
};

/// `RTM_GETROUTE` and `RTM_GETLINK` (uapi/linux/rtnetlink.h).
const GET_ROUTE: u16 = 26;
const GET_LINK: u16 = 18;
/// Length in bytes of `struct rtmsg` and `struct ifinfomsg`, which precede the attributes.
const ROUTE_HEAD: usize = 12;
const LINK_HEAD: usize = 16;
/// `RTA_DST`, `RTA_SRC`, `RTA_IIF`, `RTA_OIF`, `RTA_GATEWAY`, `RTA_MARK`, `IFLA_IFNAME`.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const INPUT: u16 = 3;
const DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
const MARK: u16 = 16;
const NAME: u16 = 3;
/// `RTM_GETRULE`, and the length in bytes of `struct fib_rule_hdr` (`uapi/linux/fib_rules.h`).
const GET_RULE: u16 = 34;
const RULE_HEAD: usize = 12;
/// `FR_ACT_TO_TBL`.
const RULE_TO_TABLE: u8 = 1;
/// `FRA_IIFNAME`, `FRA_FWMARK` and `FRA_FWMASK`.
const RULE_INPUT: u16 = 3;
const RULE_MARK: u16 = 10;
const RULE_MASK: u16 = 16;
/// `FRA_DST`, `FRA_SRC` (with their prefix lengths in the header), `FRA_GOTO`, `FRA_PRIORITY`, `FRA_FLOW`,
/// `FRA_SUPPRESS_IFGROUP`, `FRA_SUPPRESS_PREFIXLEN`, `FRA_TABLE`, `FRA_PAD`, `FRA_PROTOCOL`: a rule selects no packets by them.
const RULE_WITHOUT_SELECTION: [u16; 10] = [1, 2, 4, 6, 11, 13, 14, 15, 18, 21];
/// `RT_TABLE_LOCAL`, and `RTM_F_LOOKUP_TABLE`: name the table of the route that was found.
const LOCAL_TABLE: u8 = 255;
const LOOKUP_TABLE: u32 = 0x1000;
/// Index of the loopback device in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// The properties on which the policy rules of a network namespace match.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the selectors are independent of each other"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Selectors {
    /// Source, destination or input device.
    addresses: bool,
    /// The packet's mark.
    mark: bool,
    /// Anything else: ports, users, tunnels.
    others: bool,
    /// Whether the first rule looks up the local table for all packets.
    local_first: bool,
}

/// One lookup, as it is sent to the kernel.
#[derive(Clone, Copy)]
struct Query {
    to: IpAddr,
    from: Option<IpAddr>,
    input: Option<u32>,
    mark: u32,
}

/// Looks up a route in the calling thread's network namespace, as the kernel did for the packet. Also returns the lookup
/// that was made: the reverse path filter ignores the packet's mark, unless `src_valid_mark` is set (`__fib_validate_source`,
/// `net/ipv4/fib_frontend.c`). The route is `None` if the policy rules of the namespace match on something unknown.
///
/// # Errors
///
/// The devices, rules or routes cannot be read.
pub fn look_up(wanted: RouteLookup) -> io::Result<(RouteLookup, Option<Route>)> {
    let mut made = wanted;
    if wanted.is_reverse && wanted.mark != Some(0) {
        let mut netlink = Connection::open(NETLINK_ROUTE)?;
        let device = wanted.input.and_then(|input| device_name(&mut netlink, input));
        if !is_mark_valid(device) {
            made = wanted.unmarked();
        }
    }
    Ok((made, find(&made)?))
}

/// The route of a lookup. `None` if the policy rules match on something unknown.
fn find(lookup: &RouteLookup) -> io::Result<Option<Route>> {
    let mut netlink = Connection::open(NETLINK_ROUTE)?;
    let rules = selectors(&mut netlink, lookup.to.is_ipv6())?;
    let plain = Query {
        to: lookup.to,
        from: None,
        input: None,
        mark: 0,
    };
    // Without rules of its own, a namespace has one route to each address.
    if !(rules.addresses || rules.mark || rules.others) {
        return query(&mut netlink, &plain).map(|(route, _)| Some(route));
    }
    let mark = if rules.mark { lookup.mark } else { Some(0) };
    let Some(mark) = mark.filter(|_| !rules.others) else {
        // A destination in the local table is local, whatever the other rules match on.
        let (route, table) = query(&mut netlink, &plain)?;
        return Ok(Some(route).filter(|_| rules.local_first && table == Some(LOCAL_TABLE)));
    };
    let sent = Query {
        from: lookup.from,
        input: lookup.input.filter(|_| !lookup.is_reverse),
        mark,
        ..plain
    };
    let (route, _) = query(&mut netlink, &sent)?;
    let is_refused = is_source_refused(&route);
    if !lookup.is_reverse {
        // IPv4 checks the source of a packet that came in. An error then says nothing about the route.
        let checks_source = sent.input.is_some() && lookup.to.is_ipv4();
        return Ok(Some(route).filter(|_| !(checks_source && is_refused)));
    }
    // From an address of the namespace, this is the lookup for a packet that the namespace sends. From any other address, it
    // is that for a packet from the loopback device, unless that device has a filter too.
    if route != Route::None(Errno::EINVAL as i32) {
        return Ok(Some(route));
    }
    let forwarded = Query {
        input: Some(LOOPBACK),
        ..sent
    };
    let (route, _) = query(&mut netlink, &forwarded)?;
    Ok(Some(route).filter(|route| !is_source_refused(route)))
}

/// Whether the kernel refused the source of a lookup, or found a blackhole route.
fn is_source_refused(route: &Route) -> bool {
    matches!(route, Route::None(errno) if [Errno::EINVAL as i32, Errno::EXDEV as i32].contains(errno))
}

/// Whether the reverse path filter uses marks (`src_valid_mark`, the larger of the device's value and that of all) on this
/// device, or on any device if it is unknown.
fn is_mark_valid(device: Option<String>) -> bool {
    let conf = Path::new("/proc/sys/net/ipv4/conf");
    let is_set = |device: PathBuf| {
        fs::read_to_string(device.join("src_valid_mark")).is_ok_and(|value| value.trim() != "0")
    };
    if let Some(device) = device {
        return is_set(conf.join("all")) || is_set(conf.join(device));
    }
    let devices = fs::read_dir(conf).into_iter().flatten().flatten();
    devices.map(|device| device.path()).any(is_set)
}

/// The properties on which the rules match.
fn selectors(netlink: &mut Connection, is_v6: bool) -> io::Result<Selectors> {
    let mut head = [0; RULE_HEAD];
    head[0] = if is_v6 { 10 } else { 2 };
    let rules = netlink.list(GET_RULE, &head, &[])?;
    Ok(rules
        .iter()
        .enumerate()
        .fold(Selectors::default(), |before, (index, rule)| {
            before.and(index, rule)
        }))
}

impl Selectors {
    /// Adds the properties of the rule with this index, in the order of priorities.
    fn and(mut self, index: usize, rule: &[u8]) -> Self {
        let Some((head, body)) = rule.split_at_checked(RULE_HEAD) else {
            self.others = true;
            return self;
        };
        let mut own = Self {
            // Prefix lengths of destination and source; an action other than a lookup.
            addresses: head[1] != 0 || head[2] != 0 || head[7] != RULE_TO_TABLE,
            // TOS.
            others: head[3] != 0,
            ..Self::default()
        };
        for (kind, _) in attributes(body) {
            match kind {
                RULE_INPUT => own.addresses = true,
                RULE_MARK | RULE_MASK => own.mark = true,
                kind if RULE_WITHOUT_SELECTION.contains(&kind) => {}
                _ => own.others = true,
            }
        }
        let selects = own.addresses || own.mark || own.others;
        self.local_first |= index == 0 && !selects && head[4] == LOCAL_TABLE;
        self.addresses |= own.addresses;
        self.mark |= own.mark;
        self.others |= own.others;
        self
    }
}

/// Sends one lookup to the kernel. Returns the route, and the table that has it.
fn query(netlink: &mut Connection, query: &Query) -> io::Result<(Route, Option<u8>)> {
    let mut head = [0; ROUTE_HEAD];
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (family, bits) = if query.to.is_ipv6() { (10, 128) } else { (2, 32) };
    (head[0], head[1]) = (family, bits);
    let mut asked = vec![DefaultNla::new(DESTINATION, bytes(query.to))];
    if let Some(from) = query.from {
        head[2] = bits;
        asked.push(DefaultNla::new(SOURCE, bytes(from)));
    }
    if let Some(index) = query.input {
        asked.push(DefaultNla::new(INPUT, index.to_ne_bytes().to_vec()));
    }
    if query.mark != 0 {
        asked.push(DefaultNla::new(MARK, query.mark.to_ne_bytes().to_vec()));
    }
    head[8..12].copy_from_slice(&LOOKUP_TABLE.to_ne_bytes());
    let answers = match netlink.request(GET_ROUTE, &head, &asked) {
        Ok(answers) => answers,
        Err(error) => {
            return error
                .raw_os_error()
                .map(|errno| (Route::None(errno), None))
                .ok_or(error);
        }
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
    Ok((Route::Found(route), Some(answer[4])))
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
        let lookup = RouteLookup::of_ipvs(0, IpAddr::from([127, 0, 0, 1]));
        let Some(Route::Found(route)) = find(&lookup).unwrap() else {
            panic!("no route to the loopback address");
        };
        assert!(route.is_local());
        assert_eq!(route.device.as_deref(), Some("lo"));
        assert_eq!(Route::Found(route).to_string(), "local dev lo");
    }

    /// A rule in the form of the kernel: prefix length of the source, table, and attributes without values.
    fn rule(source: u8, table: u8, kinds: &[u16]) -> Vec<u8> {
        let mut out = vec![2, 0, source, 0, table, 0, 0, RULE_TO_TABLE, 0, 0, 0, 0];
        for kind in kinds {
            out.extend(8_u16.to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend([0; 4]);
        }
        out
    }

    fn of(rules: &[Vec<u8>]) -> Selectors {
        rules
            .iter()
            .enumerate()
            .fold(Selectors::default(), |before, (index, rule)| {
                before.and(index, rule)
            })
    }

    #[test]
    fn the_rules_of_every_namespace_select_nothing() {
        let plain = [
            rule(0, LOCAL_TABLE, &[14, 15, 21]),
            rule(0, 254, &[6, 14, 15, 21]),
            rule(0, 253, &[6]),
        ];
        let expected = Selectors {
            local_first: true,
            ..Selectors::default()
        };
        assert_eq!(of(&plain), expected);
        // A rule that comes before the local table.
        assert!(!of(&[rule(32, 100, &[6]), rule(0, LOCAL_TABLE, &[])]).local_first);
        assert!(!of(&[rule(0, LOCAL_TABLE, &[RULE_MARK])]).local_first);
    }

    #[test]
    fn rules_by_source_mark_and_anything_else_are_told_apart() {
        let selects = |kinds: &[u16], source| {
            let found = of(&[rule(0, LOCAL_TABLE, &[]), rule(source, 100, kinds)]);
            (found.addresses, found.mark, found.others)
        };
        assert_eq!(selects(&[2, 6, 15], 32), (true, false, false));
        assert_eq!(selects(&[RULE_INPUT], 0), (true, false, false));
        assert_eq!(selects(&[RULE_MARK, RULE_MASK], 0), (false, true, false));
        // `fwmark 0/0xff` has no mark.
        assert_eq!(selects(&[RULE_MASK], 0), (false, true, false));
        // A port range, and a kind that a newer kernel may add.
        assert_eq!(selects(&[24], 0), (false, false, true));
        assert_eq!(selects(&[77], 0), (false, false, true));
    }
}
