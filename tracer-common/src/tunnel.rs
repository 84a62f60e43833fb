//! The outer headers of packets inside a tunnel over IPv4: how to find the inner packet.

/// IP in IP (RFC 2003): Calico's `tunl0`. Also the value of [`crate::record::Header::encapsulation`] for it.
pub const IPIP: u8 = 4;

/// UDP. In a record it means VXLAN (RFC 7348), the only tunnel over UDP that is parsed.
pub const UDP: u8 = 17;

/// The UDP ports of VXLAN: IANA's, which Calico uses, and the former default of Linux, which flannel and Cilium use.
pub const VXLAN_PORTS: [u16; 2] = [4789, 8472];

/// Bytes between the outer and the inner IP header in VXLAN: UDP, VXLAN and Ethernet headers.
const VXLAN_LEN: u32 = 8 + 8 + 14;

/// Bytes from the outer IPv4 header to the inner IP header; `None` if the packet is not a tunnel's. `length` is that of the
/// outer header, `port` the destination port if the protocol has one, host byte order.
#[inline(always)]
#[must_use]
pub const fn inner(protocol: u8, length: u32, port: u16) -> Option<u32> {
    match protocol {
        IPIP => Some(length),
        UDP if port == VXLAN_PORTS[0] || port == VXLAN_PORTS[1] => Some(length + VXLAN_LEN),
        _ => None,
    }
}

/// The tunnel's name, as users see it.
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
    fn the_inner_packet_follows_the_headers_of_its_tunnel() {
        assert_eq!(inner(IPIP, 20, 0), Some(20));
        assert_eq!(inner(UDP, 20, 4789), Some(50));
        assert_eq!(inner(UDP, 24, 8472), Some(54));
        assert_eq!(inner(UDP, 20, 53), None);
        assert_eq!(inner(6, 20, 4789), None);
    }
}
