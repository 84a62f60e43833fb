//! IPv6 headers (RFC 8200), as far as they stand between a packet's start and its TCP header.
//!
//! The kernel walks the same five extension headers (`ipv6_ext_hdr`, `net/ipv6/exthdrs_core.c`); behind any other there
//! is no TCP for it either.

use crate::tuple::Addr;

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;

/// Hop-by-hop options.
const HOP_BY_HOP: u8 = 0;
/// Routing.
const ROUTING: u8 = 43;
/// Fragment.
const FRAGMENT: u8 = 44;
/// Authentication (RFC 4302).
const AUTHENTICATION: u8 = 51;
/// Destination options.
const DESTINATION: u8 = 60;

/// More extension headers than anyone sends: RFC 8200 recommends an order with six of them, one in two places.
pub const MOST_EXTENSIONS: u32 = 8;

/// Bits of the fragment header's third and fourth byte that hold the offset; the lowest bit says that more follow.
const OFFSET_BITS: u16 = 0xfff8;

/// The fixed header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Version, traffic class and flow label.
    pub first: [u8; 4],
    /// Bytes behind this header, extension headers included, network byte order.
    pub payload_len: [u8; 2],
    /// What follows: an extension header or a protocol.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub saddr: Addr,
    /// Destination address.
    pub daddr: Addr,
}

impl Header {
    /// Its length in bytes.
    pub const LEN: u32 = 40;

    /// Does the packet, a fragment perhaps, reach as far as `length` bytes from `offset` on? Both count from the start
    /// of this header. A jumbogram (length 0) does not: it is no part of a handshake.
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, offset: u32, length: u32) -> bool {
        Self::LEN + u16::from_be_bytes(self.payload_len) as u32 >= offset + length
    }
}

/// The first bytes of an extension header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// What follows.
    pub next: u8,
    /// Its length in the unit of its kind, less what every one of that kind has.
    pub length: u8,
    /// A fragment's offset and flags, network byte order.
    pub fragment: [u8; 2],
}

/// Is this the number of an extension header that TCP may stand behind?
#[inline(always)]
#[must_use]
pub const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

impl Extension {
    /// Bytes to the header behind this one, if its own number is `number`. `None` behind what is no extension header
    /// and in a fragment that is not the first.
    #[inline(always)]
    #[must_use]
    pub const fn length(&self, number: u8) -> Option<u32> {
        let length = self.length as u32;
        match number {
            HOP_BY_HOP | ROUTING | DESTINATION => Some((length + 1) * 8),
            AUTHENTICATION => Some((length + 2) * 4),
            FRAGMENT if u16::from_be_bytes(self.fragment) & OFFSET_BITS == 0 => Some(8),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(length: u8, fragment: u16) -> Extension {
        Extension {
            next: TCP,
            length,
            fragment: fragment.to_be_bytes(),
        }
    }

    #[test]
    fn each_kind_counts_its_length_in_its_own_way() {
        assert_eq!(extension(0, 0).length(HOP_BY_HOP), Some(8));
        assert_eq!(extension(255, 0).length(DESTINATION), Some(2048));
        assert_eq!(extension(2, 0).length(ROUTING), Some(24));
        assert_eq!(extension(4, 0).length(AUTHENTICATION), Some(24));
        // A fragment header's second byte is reserved.
        assert_eq!(extension(9, 0).length(FRAGMENT), Some(8));
        assert_eq!(extension(0, 0).length(TCP), None);
        assert_eq!(extension(0, 0).length(50), None);
    }

    #[test]
    fn only_the_first_fragment_has_a_tcp_header() {
        assert_eq!(extension(0, 1).length(FRAGMENT), Some(8));
        assert_eq!(extension(0, 8).length(FRAGMENT), None);
        assert_eq!(extension(0, 0xfff9).length(FRAGMENT), None);
    }

    #[test]
    fn a_packet_ends_where_it_says() {
        let header = |payload_len: u16| Header {
            first: [0x60, 0, 0, 0],
            payload_len: payload_len.to_be_bytes(),
            next: TCP,
            hop_limit: 64,
            saddr: Addr::default(),
            daddr: Addr::default(),
        };
        assert!(header(20).holds(40, 20));
        assert!(!header(19).holds(40, 20));
        assert!(!header(20).holds(48, 20));
        assert!(!header(0).holds(40, 20));
    }

    #[test]
    fn the_headers_are_as_long_as_on_the_wire() {
        assert_eq!(size_of::<Header>(), Header::LEN as usize);
        assert_eq!(size_of::<Extension>(), 4);
    }
}
