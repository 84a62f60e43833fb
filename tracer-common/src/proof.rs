//! Addresses of the connections that prove the layout of IPVS structs (`tracer/src/probe/ipvs_proof.rs`).
//!
//! They exist only in a network namespace of the proof's own. No program on a node uses them by itself: the addresses of a
//! connection share a tag, and each has the role of its side. So every tracer on the machine recognizes such a connection
//! and ignores it, and the proof finds its own entries in a table that has those of all namespaces.

use crate::tuple::{Addr, Tuple};

/// The lowest and the highest role of clients.
pub const CLIENTS: (u8, u8) = (82, 93);

/// The lowest and the highest role of virtual services.
pub const SERVICES: (u8, u8) = (31, 40);

/// The lowest and the highest role of real servers.
pub const REAL_SERVERS: (u8, u8) = (160, 223);

/// First and second word of the IPv6 addresses, a network of unique local addresses (RFC 4193).
const PREFIX: [u32; 2] = [0xfd1d_8c5e, 0x27b4_0000];

/// The kernel half reports the entries of the proof whose tag the loader set together with this bit.
pub const TAG_IS_SET: u32 = 1 << 16;

/// Offset of the client's address in `struct ip_vs_conn`, on all kernels without BTF for modules.
pub const CLIENT_ADDRESS_AT: u32 = 24;

/// The IPv4 address of a role in the proof with this tag.
#[must_use]
pub const fn ipv4(role: u8, tag: u16) -> [u8; 4] {
    let [high, low] = tag.to_be_bytes();
    [127, role, high ^ role, low]
}

/// The words of the IPv6 address of a role in the proof with this tag, host byte order.
#[must_use]
pub const fn ipv6(role: u8, tag: u16) -> [u32; 4] {
    [PREFIX[0], PREFIX[1], 0, (tag as u32) << 16 | role as u32]
}

/// An address that is none of a proof: no role and tag make this number.
const NONE: u32 = u32::MAX;

/// The role of an IPv4 address (its word in network byte order) in the upper half, and its tag in the lower one; [`NONE`] if it is
/// none of a proof. Numbers instead of an `Option`: verifiers reject comparing members that only one variant has.
#[inline(always)]
const fn of_ipv4(word: u32) -> u32 {
    let [first, role, high, low] = word.to_ne_bytes();
    if first != 127 {
        return NONE;
    }
    (role as u32) << 16 | ((high ^ role) as u32) << 8 | low as u32
}

/// The same for an IPv6 address (words in network byte order).
#[inline(always)]
const fn of_ipv6(words: [u32; 4]) -> u32 {
    if words[0] != PREFIX[0].to_be() || words[1] != PREFIX[1].to_be() || words[2] != 0 {
        return NONE;
    }
    let [tag_high, tag_low, zero, role] = words[3].to_ne_bytes();
    if zero != 0 {
        return NONE;
    }
    (role as u32) << 16 | (tag_high as u32) << 8 | tag_low as u32
}

/// The half of a number that is the tag.
const TAG: u32 = 0xffff;

/// Whether the role is in this range.
#[inline(always)]
const fn is_between(found: u32, roles: (u8, u8)) -> bool {
    let role = found >> 16;
    role >= roles.0 as u32 && role <= roles.1 as u32
}

/// Whether a memory of 16 bytes (`union nf_inet_addr`) holds the address of a client in the proof with this tag.
#[inline(always)]
#[must_use]
pub const fn is_client(words: [u32; 4], tag: u16) -> bool {
    // The kernel clears the words that an IPv4 address does not use.
    let found = if words[1] == 0 && words[2] == 0 && words[3] == 0 {
        of_ipv4(words[0])
    } else {
        of_ipv6(words)
    };
    found & TAG == tag as u32 && is_between(found, CLIENTS)
}

/// Whether a SYN with this tuple belongs to a proof.
#[inline(always)]
#[must_use]
pub const fn is_request(tuple: &Tuple) -> bool {
    let (from, to) = if tuple.saddr.is_v4() {
        (of_ipv4(tuple.saddr.0[3]), of_ipv4(tuple.daddr.0[3]))
    } else {
        (of_ipv6(tuple.saddr.0), of_ipv6(tuple.daddr.0))
    };
    from & TAG == to & TAG
        && is_between(from, CLIENTS)
        && (is_between(to, SERVICES) || is_between(to, REAL_SERVERS))
}

/// The address of a role as tuples have it.
#[must_use]
pub const fn addr(role: u8, tag: u16, is_v6: bool) -> Addr {
    if !is_v6 {
        return Addr::v4(ipv4(role, tag));
    }
    let [first, second, third, fourth] = ipv6(role, tag);
    Addr([first.to_be(), second.to_be(), third.to_be(), fourth.to_be()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(from: Addr, to: Addr) -> Tuple {
        Tuple {
            saddr: from,
            daddr: to,
            sport: 40_000,
            dport: 30_080,
        }
    }

    #[test]
    fn a_request_of_a_proof_is_recognized() {
        for is_v6 in [false, true] {
            for tag in [0, 7, 0xffff, 0x1234] {
                let of = |role, tag| addr(role, tag, is_v6);
                assert!(is_request(&tuple(of(83, tag), of(31, tag))));
                assert!(is_request(&tuple(of(92, tag), of(211, tag))));
                assert!(!is_request(&tuple(of(31, tag), of(83, tag))), "an answer");
                assert!(!is_request(&tuple(of(83, tag), of(31, tag ^ 1))), "another tag");
                assert!(
                    !is_request(&tuple(of(83, tag), of(31, tag ^ 0x100))),
                    "another tag"
                );
            }
        }
    }

    #[test]
    fn other_loopback_traffic_is_not_a_proofs() {
        let local = |a, b, c| Addr::v4([127, a, b, c]);
        for (from, to) in [
            (local(0, 0, 1), local(0, 0, 1)),
            (local(0, 0, 1), local(31, 31, 1)),
            (local(1, 1, 1), local(2, 2, 1)),
            (Addr::v4([10, 83, 83, 1]), Addr::v4([10, 31, 31, 1])),
            (Addr([0, 0, 0, 1_u32.to_be()]), Addr([0, 0, 0, 1_u32.to_be()])),
        ] {
            assert!(!is_request(&tuple(from, to)), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn a_client_is_found_in_the_memory_of_an_entry() {
        let memory = |addr: Addr| {
            if addr.is_v4() {
                [addr.0[3], 0, 0, 0]
            } else {
                addr.0
            }
        };
        for is_v6 in [false, true] {
            assert!(is_client(memory(addr(92, 0x102, is_v6)), 0x102));
            assert!(!is_client(memory(addr(92, 0x102, is_v6)), 0x103));
            assert!(!is_client(memory(addr(31, 0x102, is_v6)), 0x102));
        }
        assert!(!is_client([0; 4], 0));
    }
}
