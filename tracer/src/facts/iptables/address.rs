//! The conditions of an iptables rule on addresses, devices and the protocol (`struct ipt_ip`, `struct ip6t_ip6`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{decode::event::text, facts::xt::Fits};

/// The addresses, devices and protocol that a rule matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressMatch {
    source: Network,
    destination: Network,
    input: Device,
    output: Device,
    /// Protocol number; 0 for all.
    protocol: u16,
    /// Only fragments after the first.
    fragments: bool,
    inverted: u8,
}

/// An address and its mask in network byte order. IPv4 uses the first word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    address: [u8; 16],
    mask: [u8; 16],
}

/// The name of a device or its prefix, and its mask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    name: [u8; 16],
    mask: [u8; 16],
}

/// Bits of `invflags`, the same in both families.
const INVERT_INPUT: u8 = 0x01;
const INVERT_OUTPUT: u8 = 0x02;
const INVERT_SOURCE: u8 = 0x08;
const INVERT_DESTINATION: u8 = 0x10;
const INVERT_FRAGMENT: u8 = 0x20;
const INVERT_PROTOCOL: u8 = 0x40;
/// Bits of `flags`, by family.
const V4_FRAGMENT: u8 = 0x01;
const V4_GOTO: u8 = 0x02;
const V6_PROTOCOL: u8 = 0x01;
const V6_GOTO: u8 = 0x04;
/// `IPPROTO_TCP`.
const TCP: u16 = 6;

impl Network {
    /// Address and mask.
    pub(super) fn bytes(&self) -> ([u8; 16], [u8; 16]) {
        (self.address, self.mask)
    }
}

impl Device {
    /// The name as iptables prints it, a prefix with `+`; `None` for any device.
    pub(super) fn pattern(&self) -> Option<String> {
        let name = text(&self.name);
        // The mask of a whole name covers its terminating 0.
        let length = self.mask.iter().filter(|&&byte| byte != 0).count();
        match length {
            0 => None,
            _ if length > name.len() => Some(name),
            _ => Some(format!("{name}+")),
        }
    }
}

impl AddressMatch {
    /// Source and destination, each with whether it is inverted.
    pub(super) fn networks(&self) -> [(&Network, bool); 2] {
        [
            (&self.source, self.inverted & INVERT_SOURCE != 0),
            (&self.destination, self.inverted & INVERT_DESTINATION != 0),
        ]
    }

    /// Input and output device, each with whether it is inverted.
    pub(super) fn devices(&self) -> [(&Device, bool); 2] {
        [
            (&self.input, self.inverted & INVERT_INPUT != 0),
            (&self.output, self.inverted & INVERT_OUTPUT != 0),
        ]
    }

    /// The number of the protocol, 0 for any, and whether it is inverted.
    pub(super) fn protocol(&self) -> (u16, bool) {
        (self.protocol, self.inverted & INVERT_PROTOCOL != 0)
    }

    /// Parses the start of an entry. Also returns whether the rule is a goto, and the offset of the entry's two lengths.
    pub(super) fn parse(is_v6: bool, bytes: &[u8]) -> Option<(Self, bool, usize)> {
        let width = if is_v6 { 16 } else { 4 };
        let address = |index: usize| {
            let mut out = [0; 16];
            out[..width].copy_from_slice(bytes.get(index * width..(index + 1) * width)?);
            Some(out)
        };
        let devices = 4 * width;
        let word = |index: usize| bytes.get(devices + 16 * index..)?.first_chunk().copied();
        let rest = bytes.get(devices + 64..)?;
        let protocol = u16::from_ne_bytes(*rest.first_chunk()?);
        // IPv6 has one more byte before the flags, the traffic class. Its comparison is optional.
        let flags = if is_v6 { 3 } else { 2 };
        let (flags, inverted) = (*rest.get(flags)?, *rest.get(flags + 1)?);
        let has_protocol = !is_v6 || flags & V6_PROTOCOL != 0;
        let parsed = Self {
            source: Network {
                address: address(0)?,
                mask: address(2)?,
            },
            destination: Network {
                address: address(1)?,
                mask: address(3)?,
            },
            input: Device {
                name: word(0)?,
                mask: word(2)?,
            },
            output: Device {
                name: word(1)?,
                mask: word(3)?,
            },
            protocol: if has_protocol { protocol } else { 0 },
            fragments: !is_v6 && flags & V4_FRAGMENT != 0,
            inverted,
        };
        let is_goto = flags & (if is_v6 { V6_GOTO } else { V4_GOTO }) != 0;
        // Then comes a word of the kernel's own, aligned to 4 bytes.
        let lengths = (devices + 64 + if is_v6 { 5 } else { 4 }).next_multiple_of(4) + 4;
        Some((parsed, is_goto, lengths))
    }

    /// Whether a TCP packet with these addresses and devices fits. An unknown device is `None`, no device is "".
    #[must_use]
    pub fn fits(
        &self,
        source: IpAddr,
        destination: IpAddr,
        input: Option<&str>,
        output: Option<&str>,
    ) -> Fits {
        let inverted = |bit| self.inverted & bit != 0;
        let device = |device: &Device, name: Option<&str>, bit| match name {
            _ if device.is_any() && !inverted(bit) => Fits::Yes,
            Some(name) => Fits::from(device.fits(name) != inverted(bit)),
            None => Fits::Maybe,
        };
        let protocol = self.protocol == 0 || ((self.protocol == TCP) != inverted(INVERT_PROTOCOL));
        // Traced packets are unfragmented or first fragments.
        let fragment = self.fragments == inverted(INVERT_FRAGMENT);
        Fits::from(self.source.has(source) != inverted(INVERT_SOURCE))
            .and(Fits::from(
                self.destination.has(destination) != inverted(INVERT_DESTINATION),
            ))
            .and(device(&self.input, input, INVERT_INPUT))
            .and(device(&self.output, output, INVERT_OUTPUT))
            .and(Fits::from(protocol && fragment))
    }

    /// Whether it matches the destination address.
    #[must_use]
    pub fn has_destination(&self) -> bool {
        self.destination.mask != [0; 16]
    }
}

impl Network {
    fn has(&self, ip: IpAddr) -> bool {
        let mut bytes = [0; 16];
        match ip {
            IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes = v6.octets(),
        }
        bytes
            .iter()
            .zip(self.mask)
            .zip(self.address)
            .all(|((byte, mask), wanted)| byte & mask == wanted)
    }
}

impl Device {
    /// Whether it matches every device.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.mask == [0; 16]
    }

    fn fits(&self, name: &str) -> bool {
        let mut bytes = [0; 16];
        let length = name.len().min(15);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        bytes
            .iter()
            .zip(self.name)
            .zip(self.mask)
            .all(|((byte, wanted), mask)| (byte ^ wanted) & mask == 0)
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text(&self.name))
    }
}
