//! Reads the network devices of a network namespace, and the BPF programs attached to them.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Connection;
use crate::facts::link::Link;

/// `RTM_GETLINK` (uapi/linux/rtnetlink.h).
const GET_LINK: u16 = 18;
/// Length in bytes of `struct ifinfomsg`.
const HEAD: usize = 16;

/// Reads the devices of the calling thread's network namespace.
pub fn all() -> io::Result<Vec<Link>> {
    let mut netlink = Connection::open(NETLINK_ROUTE)?;
    let links = netlink.list(GET_LINK, &[0; HEAD], &[])?;
    Ok(links.iter().filter_map(|link| Link::parse(link)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_there() {
        let links = all().unwrap();
        assert!(links.iter().any(|link| link.name == "lo" && link.index != 0));
    }
}
