//! The outer headers of packets inside a tunnel over IPv4, as far as they stand between a packet's start and the inner
//! packet.

/// IP in IP (RFC 2003): Calico's `tunl0`. Also what a record of such a packet carries in
/// [`crate::record::Header::encapsulation`].
pub const IPIP: u8 = 4;

/// UDP. In a record it stands for VXLAN (RFC 7348): nothing else in UDP is looked into.
pub const UDP: u8 = 17;

/// The UDP ports of VXLAN: IANA's, which Calico and Cilium use, and the one that Linux had before, which flannel uses.
pub const VXLAN_PORTS: [u16; 2] = [4789, 8472];

/// What stands between the outer IP header and the inner one with VXLAN: UDP, VXLAN and Ethernet headers.
const VXLAN_LEN: u32 = 8 + 8 + 14;

/// Bytes from the outer IPv4 header to the inner IP header; `None` for what is no tunnel. `length` is that of the outer
/// header, `port` the destination port if the protocol has one, host byte order.
#[inline(always)]
#[must_use]
pub const fn inner(protocol: u8, length: u32, port: u16) -> Option<u32> {
    match protocol {
        IPIP => Some(length),
        UDP if port == VXLAN_PORTS[0] || port == VXLAN_PORTS[1] => Some(length + VXLAN_LEN),
        _ => None,
    }
}

/// The tunnel's name for people.
#[must_use]
pub const fn name(encapsulation: u8) -> &'static str {
    match encapsulation {
        IPIP => "IPIP",
        UDP => "VXLAN",
        _ => "a tunnel",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_packet_is_found_behind_the_headers_of_its_tunnel() {
        assert_eq!(inner(IPIP, 20, 0), Some(20));
        assert_eq!(inner(UDP, 20, 4789), Some(50));
        assert_eq!(inner(UDP, 24, 8472), Some(54));
        assert_eq!(inner(UDP, 20, 53), None);
        assert_eq!(inner(6, 20, 4789), None);
    }
}
