//! TCP segments that no TCP stack has built.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::scenario::HalfOpen;

/// The length of a TCP header without options.
const HEADER: usize = 20;

/// Sends a SYN from the netns of the calling thread, which must have the source address.
pub(super) fn send_syn(from: SocketAddr, to: SocketAddr, syn: &HalfOpen) -> Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::TCP))
        .context("cannot create a raw socket")?;
    let without_port = |address: SocketAddr| SocketAddr::new(address.ip(), 0);
    socket
        .bind(&without_port(from).into())
        .with_context(|| format!("cannot bind {}", from.ip()))?;
    socket
        .send_to(&segment(from, to, syn), &without_port(to).into())
        .with_context(|| format!("cannot send a SYN to {to}"))?;
    Ok(())
}

/// Builds a SYN with its TCP header.
pub(super) fn segment(from: SocketAddr, to: SocketAddr, syn: &HalfOpen) -> Vec<u8> {
    // MSS 1460.
    let mut options = vec![2, 4, 5, 180];
    if let Some(timestamp) = syn.timestamp {
        options.extend([1, 1, 8, 10]);
        options.extend(timestamp.to_be_bytes());
        options.extend([0; 4]);
    }
    let words = u8::try_from((HEADER + options.len()) / 4).unwrap_or_default();
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(syn.sequence.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([words << 4, 0x02]);
    segment.extend(64_240_u16.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    let mut checksum = checksum(from.ip(), to.ip(), &segment);
    if syn.bad_checksum {
        checksum = checksum.wrapping_add(1);
    }
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// The checksum of a TCP segment and its pseudo header.
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0, 6]);
    bytes.extend(u16::try_from(segment.len()).unwrap_or_default().to_be_bytes());
    bytes.extend(segment);
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_well_formed() {
        let (from, to) = (
            "10.0.0.2:40000".parse().unwrap(),
            "10.0.0.1:30080".parse().unwrap(),
        );
        let syn = HalfOpen {
            timestamp: Some(7),
            ..HalfOpen::default()
        };
        let bytes = segment(from, to, &syn);
        assert_eq!(bytes.len(), 36);
        assert_eq!(bytes[..4], [0x9c, 0x40, 0x75, 0x80]);
        assert_eq!(bytes[12] >> 4, 9, "header length in words");
        assert_eq!(bytes[13], 2, "only the SYN flag");
        // The sum over a segment with a correct checksum is zero.
        assert_eq!(checksum(from.ip(), to.ip(), &bytes), 0);
        let bad = HalfOpen {
            bad_checksum: true,
            ..syn
        };
        assert_ne!(checksum(from.ip(), to.ip(), &segment(from, to, &bad)), 0);
    }
}
