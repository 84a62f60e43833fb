//! Matches of iptables extensions, and whether a packet fits them.
//!
//! Legacy tables and rules of `iptables-nft` store them in the same form (`uapi/linux/netfilter/xt_*.h`).

use std::ops::RangeInclusive;

use bytes::Buf as _;
use serde::{Deserialize, Serialize};
use tracer_common::record::table;

use super::port_range::PortRanges;

/// A match of a rule: an extension and its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Name of the extension, for example `comment`.
    pub name: String,
    /// Revision of the data.
    pub revision: u8,
    /// The data, as stored by the kernel.
    pub info: Vec<u8>,
}

/// The known properties of a packet; `None` if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// The flags byte of its TCP header.
    pub tcp_flags: Option<u8>,
    /// Its mark.
    pub mark: Option<u32>,
    /// State of its connection (`enum ip_conntrack_info`), or [`table::NO_CONNECTION`].
    pub ctinfo: Option<u32>,
    /// Whether its source is an address of this network namespace.
    pub from_node: Option<bool>,
}

/// Whether a packet fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Not enough is known of the packet.
    Maybe,
}

impl Fits {
    /// Combines two conditions that must both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

impl From<bool> for Fits {
    fn from(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

impl Match {
    /// The text of a comment.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        (self.name == "comment").then(|| crate::decode::event::text(&self.info))
    }

    /// The only destination port that it matches, if there is just one.
    #[must_use]
    pub fn dport(&self) -> Option<u16> {
        let ports = (self.name == "tcp").then(|| Tcp::parse(&self.info)).flatten()?;
        let only = ports.destination.start() == ports.destination.end() && ports.inverted & INVERT_DPORT == 0;
        only.then_some(*ports.destination.start())
    }

    /// The destination ports that it matches, if it names several.
    #[must_use]
    pub fn dports(&self) -> PortRanges {
        let ranges = match (self.name.as_str(), self.revision) {
            ("tcp", _) => Tcp::parse(&self.info)
                .filter(|tcp| tcp.inverted & INVERT_DPORT == 0)
                .map(|tcp| {
                    let (first, last) = (*tcp.destination.start(), *tcp.destination.end());
                    [(first, last)].into_iter().filter(|_| first != last).collect()
                }),
            ("multiport", 1) => Multiport::parse(&self.info)
                .filter(|ports| !ports.inverted && ports.which != Multiport::SOURCE)
                .map(|ports| ports.ranges),
            _ => None,
        };
        ranges.filter(PortRanges::names_ports).unwrap_or_default()
    }

    /// Whether it matches packets that conntrack finds INVALID.
    #[must_use]
    pub fn matches_invalid(&self) -> bool {
        let mask = match (self.name.as_str(), self.revision) {
            ("conntrack", 3) => wanted_states(&self.info),
            ("state", 0) => self.info.as_slice().try_get_u32_ne().ok(),
            _ => None,
        };
        mask.is_some_and(|mask| mask & states::INVALID != 0)
    }

    /// Whether the packet fits.
    #[must_use]
    pub fn fits(&self, packet: &Packet) -> Fits {
        let fits = match (self.name.as_str(), self.revision) {
            ("comment", 0) => Some(Fits::Yes),
            ("tcp", 0) => Tcp::parse(&self.info).map(|tcp| tcp.fits(packet)),
            ("udp" | "icmp" | "icmp6" | "sctp" | "udplite", _) => Some(Fits::No),
            ("multiport", 1) => Multiport::parse(&self.info).map(|ports| ports.fits(packet)),
            ("mark", 1) => mark(&self.info, packet),
            ("conntrack", 3) => conntrack(&self.info, packet),
            ("state", 0) => state(&self.info, packet),
            ("addrtype", 1) => addrtype(&self.info, packet),
            _ => None,
        };
        fits.unwrap_or(Fits::Maybe)
    }
}

const INVERT_SPORT: u8 = 1;
const INVERT_DPORT: u8 = 2;
const INVERT_FLAGS: u8 = 4;

/// `struct xt_tcp`: ports in host byte order.
struct Tcp {
    source: RangeInclusive<u16>,
    destination: RangeInclusive<u16>,
    option: u8,
    flags_mask: u8,
    flags: u8,
    inverted: u8,
}

impl Tcp {
    fn parse(mut info: &[u8]) -> Option<Self> {
        let info = &mut info;
        Some(Self {
            source: info.try_get_u16_ne().ok()?..=info.try_get_u16_ne().ok()?,
            destination: info.try_get_u16_ne().ok()?..=info.try_get_u16_ne().ok()?,
            option: info.try_get_u8().ok()?,
            flags_mask: info.try_get_u8().ok()?,
            flags: info.try_get_u8().ok()?,
            inverted: info.try_get_u8().ok()?,
        })
    }

    fn fits(&self, packet: &Packet) -> Fits {
        let inverted = |bit| self.inverted & bit != 0;
        let ports = (self.source.contains(&packet.sport) != inverted(INVERT_SPORT))
            && (self.destination.contains(&packet.dport) != inverted(INVERT_DPORT));
        let flags = if self.flags_mask == 0 && !inverted(INVERT_FLAGS) {
            Fits::Yes
        } else {
            packet.tcp_flags.map_or(Fits::Maybe, |flags| {
                Fits::from((flags & self.flags_mask == self.flags) != inverted(INVERT_FLAGS))
            })
        };
        let option = if self.option == 0 { Fits::Yes } else { Fits::Maybe };
        Fits::from(ports).and(flags).and(option)
    }
}

/// `struct xt_multiport_v1`: which ports, how many, the ports, whether each starts a range, whether to invert.
struct Multiport {
    which: u8,
    ranges: PortRanges,
    inverted: bool,
}

impl Multiport {
    /// `XT_MULTIPORT_SOURCE`; 1 is the destination, 2 either.
    const SOURCE: u8 = 0;
    const MAX_PORTS: usize = 15;

    fn parse(mut info: &[u8]) -> Option<Self> {
        let (which, count) = (info.try_get_u8().ok()?, usize::from(info.try_get_u8().ok()?));
        let mut ports = [0; Self::MAX_PORTS];
        for port in &mut ports {
            *port = info.try_get_u16_ne().ok()?;
        }
        let mut begins = [0; Self::MAX_PORTS];
        info.try_copy_to_slice(&mut begins).ok()?;
        let inverted = info.try_get_u8().ok()? != 0;
        let mut ranges = PortRanges::default();
        let mut index = 0;
        while index < count.min(Self::MAX_PORTS) {
            let first = ports[index];
            let last = if begins[index] != 0 {
                index += 1;
                *ports.get(index)?
            } else {
                first
            };
            ranges.add(first, last);
            index += 1;
        }
        (which <= 2).then_some(Self {
            which,
            ranges,
            inverted,
        })
    }

    fn fits(&self, packet: &Packet) -> Fits {
        let tested: &[u16] = match self.which {
            0 => &[packet.sport],
            1 => &[packet.dport],
            _ => &[packet.sport, packet.dport],
        };
        let found = tested.iter().any(|&port| self.ranges.contains(port));
        Fits::from(found != self.inverted)
    }
}

/// `struct xt_mark_mtinfo1`: mark, mask, whether to invert.
fn mark(mut info: &[u8], packet: &Packet) -> Option<Fits> {
    let (mark, mask) = (info.try_get_u32_ne().ok()?, info.try_get_u32_ne().ok()?);
    let inverted = info.try_get_u8().ok()? != 0;
    Some(Fits::from((packet.mark? & mask == mark) != inverted))
}

/// State bits of `conntrack` and `state`.
mod states {
    pub(super) const INVALID: u32 = 1;
    pub(super) const SNAT: u32 = 1 << 6;
    pub(super) const DNAT: u32 = 1 << 7;
    pub(super) const UNTRACKED: u32 = 1 << 8;
    /// The bit of the older extension `state`.
    pub(super) const STATE_UNTRACKED: u32 = 1 << 6;

    /// `XT_CONNTRACK_STATE_BIT`, whatever the direction.
    pub(super) fn of(ctinfo: u32) -> u32 {
        1 << (ctinfo % 3 + 1)
    }
}

/// The match flags of `struct xt_conntrack_mtinfo3`, the flags of inverted matches, and the states.
fn parse_conntrack(info: &[u8]) -> Option<(u16, u16, u32)> {
    // Four addresses with their masks, two times, a protocol, four ports.
    let mut rest = info.get(128 + 8 + 2 + 8..)?;
    let (flags, inverted) = (rest.try_get_u16_ne().ok()?, rest.try_get_u16_ne().ok()?);
    Some((flags, inverted, u32::from(rest.try_get_u16_ne().ok()?)))
}

/// `XT_CONNTRACK_STATE`.
const MATCH_STATE: u16 = 1;

/// The states that the match accepts, if it checks the state.
fn wanted_states(info: &[u8]) -> Option<u32> {
    let (flags, inverted, mask) = parse_conntrack(info)?;
    (flags & MATCH_STATE != 0 && inverted & MATCH_STATE == 0).then_some(mask)
}

/// `struct xt_conntrack_mtinfo3`, if it matches only the state.
fn conntrack(info: &[u8], packet: &Packet) -> Option<Fits> {
    const MATCH_STATE_ALIAS: u16 = 1 << 13;
    let (flags, inverted, mask) = parse_conntrack(info)?;
    if flags & !MATCH_STATE_ALIAS != MATCH_STATE {
        return None;
    }
    let inverted = inverted & MATCH_STATE != 0;
    let known = match packet.ctinfo? {
        table::NO_CONNECTION => states::INVALID,
        table::UNTRACKED => states::UNTRACKED,
        ctinfo => states::of(ctinfo),
    };
    let translated = mask & (states::SNAT | states::DNAT) != 0;
    Some(if mask & known != 0 {
        Fits::from(!inverted)
    } else if translated && packet.ctinfo? < table::UNTRACKED {
        // Whether the connection is translated is unknown.
        Fits::Maybe
    } else {
        Fits::from(inverted)
    })
}

/// `struct xt_addrtype_info_v1`, if it matches only whether the source is local: types of source and destination (bits by
/// `enum rtn_type`), flags.
fn addrtype(mut info: &[u8], packet: &Packet) -> Option<Fits> {
    const LOCAL: u16 = 1 << 2;
    const INVERT_SOURCE: u32 = 1;
    let (source, destination) = (info.try_get_u16_ne().ok()?, info.try_get_u16_ne().ok()?);
    let flags = info.try_get_u32_ne().ok()?;
    let local = packet.from_node?;
    let is_known = source == LOCAL && destination == 0 && flags & !INVERT_SOURCE == 0;
    is_known.then(|| Fits::from(local != (flags & INVERT_SOURCE != 0)))
}

/// `struct xt_state_info`.
fn state(mut info: &[u8], packet: &Packet) -> Option<Fits> {
    let mask = info.try_get_u32_ne().ok()?;
    let known = match packet.ctinfo? {
        table::NO_CONNECTION => states::INVALID,
        table::UNTRACKED => states::STATE_UNTRACKED,
        ctinfo => states::of(ctinfo),
    };
    Some(Fits::from(mask & known != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: Packet = Packet {
        sport: 41_000,
        dport: 30_080,
        tcp_flags: Some(tracer_common::tcp::SYN),
        mark: Some(0x4000),
        ctinfo: Some(table::NEW),
        from_node: None,
    };

    fn match_of(name: &str, revision: u8, info: impl Into<Vec<u8>>) -> Match {
        Match {
            name: name.to_owned(),
            revision,
            info: info.into(),
        }
    }

    fn ports(source: (u16, u16), destination: (u16, u16), rest: [u8; 4]) -> Vec<u8> {
        let ports = [source.0, source.1, destination.0, destination.1];
        let mut info: Vec<u8> = ports.iter().flat_map(|port| port.to_ne_bytes()).collect();
        info.extend(rest);
        info
    }

    #[test]
    fn a_comment_fits_and_ends_at_its_first_zero() {
        let mut info = b"shop/web:http".to_vec();
        info.resize(256, 0);
        let comment = match_of("comment", 0, info);
        assert_eq!(comment.comment().as_deref(), Some("shop/web:http"));
        assert_eq!(comment.fits(&SYN), Fits::Yes);
    }

    #[test]
    fn tcp_compares_ports_and_flags() {
        let any = (0, u16::MAX);
        let one = match_of("tcp", 0, ports(any, (30_080, 30_080), [0; 4]));
        assert_eq!((one.dport(), one.fits(&SYN)), (Some(30_080), Fits::Yes));
        assert!(one.dports().is_empty());
        let range = match_of("tcp", 0, ports(any, (30_000, 30_100), [0; 4]));
        assert_eq!((range.dport(), range.dports().contains(30_080)), (None, true));
        assert!(match_of("tcp", 0, ports(any, any, [0; 4])).dports().is_empty());
        let other = match_of("tcp", 0, ports(any, (30_081, 30_081), [0; 4]));
        assert_eq!(other.fits(&SYN), Fits::No);
        let not_other = match_of("tcp", 0, ports(any, (30_081, 30_081), [0, 0, 0, 2]));
        assert_eq!((not_other.dport(), not_other.fits(&SYN)), (None, Fits::Yes));
        // --syn: of FIN, SYN, RST and ACK, SYN alone.
        let syn = match_of("tcp", 0, ports(any, any, [0, 0x17, 2, 0]));
        assert_eq!((syn.dport(), syn.fits(&SYN)), (None, Fits::Yes));
        let unread = Packet {
            tcp_flags: None,
            ..SYN
        };
        assert_eq!(syn.fits(&unread), Fits::Maybe);
        let not_syn = match_of("tcp", 0, ports(any, any, [0, 0x17, 2, 4]));
        assert_eq!(not_syn.fits(&SYN), Fits::No);
        let option = match_of("tcp", 0, ports(any, any, [2, 0, 0, 0]));
        assert_eq!(option.fits(&SYN), Fits::Maybe);
    }

    #[test]
    fn multiport_compares_lists_and_ranges() {
        let list = |which: u8, ports: &[u16], begins: &[u8], inverted: u8| {
            let mut info = vec![which, u8::try_from(ports.len()).unwrap()];
            for index in 0..15 {
                info.extend(ports.get(index).unwrap_or(&0).to_ne_bytes());
            }
            info.extend((0..15).map(|index| begins.get(index).unwrap_or(&0)));
            info.push(inverted);
            match_of("multiport", 1, info)
        };
        assert_eq!(list(1, &[80, 30_080], &[], 0).fits(&SYN), Fits::Yes);
        assert_eq!(list(1, &[80, 443], &[], 0).fits(&SYN), Fits::No);
        assert_eq!(list(1, &[80, 30_000, 32_767], &[0, 1], 0).fits(&SYN), Fits::Yes);
        assert_eq!(list(1, &[80, 30_000, 32_767], &[0, 1], 1).fits(&SYN), Fits::No);
        assert_eq!(list(2, &[41_000], &[], 0).fits(&SYN), Fits::Yes);
        let named = |ports: &[(u16, u16)]| ports.iter().copied().collect::<PortRanges>();
        let several = list(1, &[80, 30_000, 32_767], &[0, 1], 0);
        assert_eq!(several.dports(), named(&[(80, 80), (30_000, 32_767)]));
        assert_eq!(list(2, &[80], &[], 0).dports(), named(&[(80, 80)]));
        // Source ports, ports that it does not match, and all ports.
        for none in [
            list(0, &[80], &[], 0),
            list(1, &[80], &[], 1),
            list(1, &[0, u16::MAX], &[1], 0),
        ] {
            assert!(none.dports().is_empty());
        }
    }

    #[test]
    fn conntrack_compares_states() {
        let conntrack = |states: u16, inverted: u16| {
            let mut info = vec![0; 146];
            for word in [1, inverted, states, 0] {
                info.extend(u16::to_ne_bytes(word));
            }
            match_of("conntrack", 3, info)
        };
        let (invalid, established, new) = (1, 2, 8);
        assert_eq!(conntrack(new, 0).fits(&SYN), Fits::Yes);
        assert_eq!(conntrack(established, 0).fits(&SYN), Fits::No);
        assert_eq!(conntrack(established, 1).fits(&SYN), Fits::Yes);
        assert_eq!(conntrack(invalid, 0).fits(&SYN), Fits::No);
        let stray = Packet {
            ctinfo: Some(table::NO_CONNECTION),
            ..SYN
        };
        assert_eq!(conntrack(invalid, 0).fits(&stray), Fits::Yes);
        // DNAT may or may not have been done.
        assert_eq!(conntrack(1 << 7, 0).fits(&SYN), Fits::Maybe);
        assert_eq!(conntrack(1 << 7, 0).fits(&stray), Fits::No);
        let unread = Packet { ctinfo: None, ..SYN };
        assert_eq!(conntrack(new, 0).fits(&unread), Fits::Maybe);
        assert_eq!(match_of("state", 0, 8_u32.to_ne_bytes()).fits(&SYN), Fits::Yes);
    }

    #[test]
    fn mark_compares_masked_bits() {
        let mark = |mark: u32, mask: u32, inverted| {
            let mut info = [mark.to_ne_bytes(), mask.to_ne_bytes()].concat();
            info.push(inverted);
            match_of("mark", 1, info)
        };
        assert_eq!(mark(0x4000, 0x4000, 0).fits(&SYN), Fits::Yes);
        assert_eq!(mark(0x8000, 0x8000, 0).fits(&SYN), Fits::No);
        assert_eq!(mark(0x8000, 0x8000, 1).fits(&SYN), Fits::Yes);
        assert_eq!(
            mark(0x4000, 0x4000, 0).fits(&Packet { mark: None, ..SYN }),
            Fits::Maybe
        );
    }

    #[test]
    fn addrtype_compares_whether_the_source_is_local() {
        let addrtype = |source: u16, destination: u16, flags: u32| {
            let types = [source.to_ne_bytes(), destination.to_ne_bytes()].concat();
            match_of("addrtype", 1, [types, flags.to_ne_bytes().to_vec()].concat())
        };
        let from = |local| Packet {
            from_node: Some(local),
            ..SYN
        };
        assert_eq!(addrtype(4, 0, 0).fits(&from(true)), Fits::Yes);
        assert_eq!(addrtype(4, 0, 0).fits(&from(false)), Fits::No);
        assert_eq!(addrtype(4, 0, 1).fits(&from(false)), Fits::Yes);
        for unknown in [addrtype(4, 4, 0), addrtype(2, 0, 0), addrtype(4, 0, 4)] {
            assert_eq!(unknown.fits(&from(false)), Fits::Maybe);
        }
        assert_eq!(addrtype(4, 0, 0).fits(&SYN), Fits::Maybe);
    }

    #[test]
    fn an_unknown_or_damaged_match_may_fit() {
        assert_eq!(match_of("set", 4, [0; 16]).fits(&SYN), Fits::Maybe);
        assert_eq!(match_of("tcp", 0, [1, 2, 3]).fits(&SYN), Fits::Maybe);
        assert_eq!(match_of("multiport", 1, [1, 200]).fits(&SYN), Fits::Maybe);
        assert_eq!(match_of("conntrack", 3, [0; 20]).fits(&SYN), Fits::Maybe);
    }
}
