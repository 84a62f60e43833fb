//! The 5-tuple of a TCP packet (the protocol is always TCP here).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address as four 32-bit words in network byte order, IPv4 mapped into IPv6 (`::ffff:a.b.c.d`).
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// An IPv4 address from its four bytes in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self::v4_word(u32::from_ne_bytes(bytes))
    }

    /// An IPv4 address from its word in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(word: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), word])
    }

    /// Whether this is an IPv4 address. No IPv6 packet has a mapped address: the kernel drops it (`ip6_rcv_core`).
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        let [first, second, third, _] = self.0;
        first == 0 && second == 0 && third == 0xffff_u32.to_be()
    }

    /// The address for printing and comparing: IPv4 if it is mapped.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Ipv6Addr::from(bytes).to_canonical()
    }

    /// Whether the address is unspecified (all zero).
    #[must_use]
    pub fn is_unset(self) -> bool {
        self == Self::default()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let bytes = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Self(words)
    }
}

/// Source and destination of a packet, from its own headers. Ports are in host byte order.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Tuple {
    /// Source address.
    pub saddr: Addr,
    /// Destination address.
    pub daddr: Addr,
    /// Source port, host byte order.
    pub sport: u16,
    /// Destination port, host byte order.
    pub dport: u16,
}

impl Tuple {
    /// Whether it is the tuple of an IPv6 packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        !self.saddr.is_v4()
    }

    /// The tuple of a packet in the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            saddr: self.daddr,
            daddr: self.saddr,
            sport: self.dport,
            dport: self.sport,
        }
    }

    /// Source as a socket address.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.saddr.ip(), self.sport)
    }

    /// Destination as a socket address.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.daddr.ip(), self.dport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_survives_the_mapping() {
        let addr = Addr::v4([10, 0, 0, 1]);
        assert_eq!(addr.ip(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(Addr::from(addr.ip()), addr);
        assert!(addr.is_v4());
    }

    #[test]
    fn an_ipv6_address_keeps_its_words() {
        let ip = IpAddr::from([0xfd00, 0, 0, 0, 0, 0xffff, 0xa00, 1]);
        let addr = Addr::from(ip);
        assert_eq!(addr.ip(), ip);
        assert!(!addr.is_v4());
    }

    #[test]
    fn reversing_twice_gives_the_same_tuple() {
        let tuple = Tuple {
            saddr: Addr::v4([1, 2, 3, 4]),
            daddr: Addr::v4([5, 6, 7, 8]),
            sport: 1,
            dport: 2,
        };
        assert_ne!(tuple.reversed(), tuple);
        assert_eq!(tuple.reversed().reversed(), tuple);
    }
}
