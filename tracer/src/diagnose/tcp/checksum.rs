//! Packets that TCP drops because their checksum is wrong.

use std::net::IpAddr;

use tracer_common::{hook::Hook, record::TcpHeader, tuple::Tuple};

use crate::{
    decode::event::Payload,
    diagnose::{
        case::{Case, Proof},
        cause::Cause,
        evidence::{self, Evidence, Key},
        route::freed,
        row::{Absence, Group, Light, Row},
    },
    flow::model::Step,
};

/// Bytes of a TCP header without options, and where its checksum is.
const SHORTEST: usize = 20;
const CHECKSUM_AT: usize = 16;
/// `IPPROTO_TCP`.
const TCP: u32 = 6;
/// The functions in which TCP frees a packet with a wrong checksum and no data (`net/ipv4/tcp_ipv4.c`, `net/ipv6/tcp_ipv6.c`,
/// 3.10 to 5.16). Such a packet is at most 76 bytes long, and its checksum is verified at once (`CHECKSUM_BREAK`).
const INPUT: [&str; 2] = ["tcp_v4_rcv", "tcp_v6_rcv"];

/// The drop reason, since 5.17 (`tcp_v4_rcv`, `tcp_v6_rcv`).
const REASON: &str = "TCP_CSUM";

pub(in crate::diagnose) const ROWS: &[Row] = &[Row {
    cause: Cause::TcpBadChecksum,
    group: Group::BackendTcp,
    summary: "TCP dropped the packet: its checksum is wrong.",
    proof: "The packet was freed with the reason TCP_CSUM; or, where the kernel gives no reasons, it was freed in tcp_v4_rcv or \
            tcp_v6_rcv, and the checksum in its TCP header is not that of the segment.",
    advice: Some(
        "Find out who sends the packet without a valid checksum: with checksum offload a device fills it in, and a faulty driver, \
         tunnel or virtual switch does not. Turn off its transmit offload (`ethtool -K DEV tx off`), and compare captures before \
         and after that device. `nstat -az TcpInCsumErrors` in the receiver's network namespace counts such packets.",
    ),
    scope: "Every kernel and dataplane; where the kernel gives no drop reason, only for segments without data. Where a rule drops INVALID packets on the node: see conntrack.invalid.",
    hooks: &[&[Hook::KfreeSkb]],
    absence: Absence::Nothing,
    light: Light::Proves,
    detect: bad_checksum,
}];

fn bad_checksum(case: &Case<'_>) -> Option<Proof> {
    let freed = freed::step(case)?;
    let wrong = match freed::reason(case, freed) {
        Some(REASON) => None,
        None if freed::is_in(case, freed, &INPUT) => {
            Some(Checksums::of(case, freed).filter(|checksums| checksums.is_wrong())?)
        }
        _ => return None,
    };
    let place = if freed.netns == case.flow.netns {
        "this node's TCP".to_owned()
    } else {
        format!(
            "TCP in the backend's network namespace ({})",
            evidence::place(freed)
        )
    };
    let checksums = wrong.map(|it| {
        Evidence::seen(
            Key::Checksum,
            format!("{:#06x} in the header, {:#06x} computed", it.found, it.computed),
            Hook::KfreeSkb,
        )
    });
    Some(Proof::new(
        format!(
            "The {} {} -> {} has a wrong checksum: {place} dropped it.",
            freed::packet(freed),
            freed.event.tuple.source(),
            freed.event.tuple.destination(),
        ),
        checksums.into_iter().chain(evidence::dropped(freed, case.facts)),
    ))
}

/// The checksums of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checksums {
    /// In its header.
    found: u16,
    /// That of the segment, with the addresses of the packet.
    computed: u16,
    /// That of the addresses alone: the header has it while a device is still to compute the rest (`CHECKSUM_PARTIAL`).
    partial: u16,
}

impl Checksums {
    /// The checksums of a packet that was freed, if its whole segment was read.
    fn of(case: &Case<'_>, freed: &Step) -> Option<Self> {
        let header = case.flow.detail(&freed.event, |payload| match payload {
            Payload::TcpHeader(header) => Some(header),
            _ => None,
        })?;
        Self::of_segment(&freed.event.tuple, header)
    }

    fn of_segment(tuple: &Tuple, header: &TcpHeader) -> Option<Self> {
        let length = usize::from(header.bytes[12] >> 4) * 4;
        if length < SHORTEST || u32::try_from(length) != Ok(header.length) {
            return None;
        }
        let segment = header.bytes.get(..length)?;
        let address = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let pseudo = [address(tuple.saddr.ip()), address(tuple.daddr.ip())].concat();
        let pseudo = sum(&pseudo) + TCP + header.length;
        let (before, rest) = segment.split_at(CHECKSUM_AT);
        let (found, after) = rest.split_first_chunk::<2>()?;
        Some(Self {
            found: u16::from_be_bytes(*found),
            computed: !fold(pseudo + sum(before) + sum(after)),
            partial: fold(pseudo),
        })
    }

    /// Whether the checksum is wrong. In one's complement 0 has two forms.
    fn is_wrong(self) -> bool {
        let is_zero = |value: u16| value == 0 || value == u16::MAX;
        let is_same = |value: u16| self.found == value || is_zero(self.found) && is_zero(value);
        !is_same(self.computed) && !is_same(self.partial)
    }
}

/// The sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        _ => 0,
    });
    words.map(u32::from).sum()
}

/// Adds the carries to a sum.
fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    let [_, _, high, low] = ((once >> 16) + (once & 0xffff)).to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use tracer_common::tuple::Addr;

    use super::*;

    /// A SYN of 20 bytes from 10.0.0.2:41000 to 10.244.1.2:8080, with this checksum.
    fn syn(checksum: u16) -> (Tuple, TcpHeader) {
        let tuple = Tuple {
            saddr: Addr::from(IpAddr::from([10, 0, 0, 2])),
            daddr: Addr::from(IpAddr::from([10, 244, 1, 2])),
            sport: 41000,
            dport: 8080,
        };
        let mut bytes = [0xee; 60];
        bytes[..20].fill(0);
        bytes[..2].copy_from_slice(&tuple.sport.to_be_bytes());
        bytes[2..4].copy_from_slice(&tuple.dport.to_be_bytes());
        bytes[12..14].copy_from_slice(&[0x50, 2]);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        (tuple, TcpHeader { length: 20, bytes })
    }

    fn of(checksum: u16) -> Checksums {
        let (tuple, header) = syn(checksum);
        Checksums::of_segment(&tuple, &header).expect("a whole segment")
    }

    #[test]
    fn only_a_checksum_that_no_device_will_complete_is_wrong() {
        // By hand: the words of both addresses, 6, 20, both ports and 0x5002 add up to 0x125cc.
        let right = of(0xda32);
        assert_eq!((right.found, right.computed), (0xda32, 0xda32));
        assert!(!right.is_wrong());
        assert!(of(0xda33).is_wrong());
        assert!(!of(right.partial).is_wrong());
    }

    #[test]
    fn a_segment_that_was_not_read_whole_proves_nothing() {
        let (tuple, mut header) = syn(1);
        header.length = 24;
        assert_eq!(Checksums::of_segment(&tuple, &header), None);
        header.bytes = [0; 60];
        assert_eq!(Checksums::of_segment(&tuple, &header), None);
    }
}
