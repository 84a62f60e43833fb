//! The IPv6 headers (RFC 8200) that can precede a TCP header.
//!
//! The kernel walks the same five extension headers (`ipv6_ext_hdr`, `net/ipv6/exthdrs_core.c`); after any other it finds no
//! TCP either.

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

/// How many extension headers are walked. RFC 8200 recommends an order with six of them, one in two places.
pub const MAX_EXTENSIONS: u32 = 8;

/// The bits of the offset in the fragment header's third and fourth byte; the lowest bit means more fragments.
const OFFSET_BITS: u16 = 0xfff8;

/// The fixed header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Version, traffic class and flow label.
    pub first: [u8; 4],
    /// Bytes after this header, extension headers included; network byte order.
    pub payload_len: [u8; 2],
    /// Number of the next header: an extension header or a protocol.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub saddr: Addr,
    /// Destination address.
    pub daddr: Addr,
}

impl Header {
    /// Length in bytes.
    pub const LEN: u32 = 40;

    /// Whether the packet, which may be a fragment, contains `length` bytes at `offset`. The offset counts from the start
    /// of this header. A jumbogram (length 0) does not: it is never part of a handshake.
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
    /// Number of the next header.
    pub next: u8,
    /// Its length in units of its type, less the fixed part of that type.
    pub length: u8,
    /// Offset and flags of a fragment, network byte order.
    pub fragment: [u8; 2],
}

/// Whether this is the number of an extension header that can precede TCP.
#[inline(always)]
#[must_use]
pub const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

impl Extension {
    /// Bytes to the next header, if this one's number is `number`. `None` if it is not an extension header, or a fragment
    /// other than the first.
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
    fn each_type_has_its_own_unit_of_length() {
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
    fn a_packet_ends_at_its_payload_length() {
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
    fn headers_have_their_length_on_the_wire() {
        assert_eq!(size_of::<Header>(), Header::LEN as usize);
        assert_eq!(size_of::<Extension>(), 4);
    }
}
