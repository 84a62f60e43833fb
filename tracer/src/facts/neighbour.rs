//! Neighbour entries: the MAC addresses to which a network namespace sends.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::netlink::attributes;

/// Length in bytes of `struct ndmsg`, which precedes the attributes.
const HEAD: usize = 12;
/// `NDA_DST` and `NDA_LLADDR` (uapi/linux/neighbour.h).
const DESTINATION: u16 = 1;
const ADDRESS: u16 = 2;

/// A neighbour entry with a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The address that it resolves.
    pub address: IpAddr,
    /// Index of the device.
    pub device: u32,
    /// The MAC address.
    pub mac: [u8; 6],
}

impl Neighbour {
    /// Reads a message about an entry (`RTM_NEWNEIGH`); `None` if it has no MAC address.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let device = u32::from_ne_bytes(message.get(4..8)?.try_into().ok()?);
        let (mut address, mut mac) = (None, None);
        for (kind, value) in attributes(message.get(HEAD..)?) {
            match kind {
                DESTINATION => {
                    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
                    address = v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok();
                }
                ADDRESS => mac = value.try_into().ok(),
                _ => {}
            }
        }
        Some(Self {
            address: address?,
            device,
            mac: mac?,
        })
    }
}

/// A MAC address as `ip link` prints it.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_address_and_its_mac() {
        let mut message = vec![0; HEAD];
        message[4] = 3;
        message.extend([8, 0, 1, 0, 10, 244, 1, 2]);
        assert_eq!(Neighbour::parse(&message), None);
        message.extend([10, 0, 2, 0, 2, 0, 0, 0, 0, 0x1f, 0, 0]);
        let expected = Neighbour {
            address: IpAddr::from([10, 244, 1, 2]),
            device: 3,
            mac: [2, 0, 0, 0, 0, 0x1f],
        };
        assert_eq!(Neighbour::parse(&message), Some(expected));
        assert_eq!(mac_text([2, 0, 0, 0, 0, 0x1f]), "02:00:00:00:00:1f");
        assert_eq!(Neighbour::parse(&[0; 7]), None);
    }
}
