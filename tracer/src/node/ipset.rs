//! Reads IP sets, for example those of kube-proxy's IPVS mode.

use std::{collections::BTreeSet, io};

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{modules, netlink::Connection};
use crate::facts::ipset;

/// `NFNL_SUBSYS_IPSET` and `IPSET_CMD_LIST`.
const LIST: u16 = 6 << 8 | 7;
/// The oldest protocol version that current kernels support.
const PROTOCOL: u8 = 6;
/// Attributes (`uapi/linux/netfilter/ipset/ip_set.h`).
const ATTR_PROTOCOL: u16 = 1;
const ATTR_NAME: u16 = 2;

/// Reads the ports in a set (`bitmap:port`) of the calling thread's network namespace. `None` if there is no such set.
pub fn ports(name: &str) -> io::Result<Option<BTreeSet<u16>>> {
    // Without the module, the request would make the kernel load it.
    if !modules::read()?.has("ip_set") {
        return Ok(None);
    }
    let attributes = [
        DefaultNla::new(ATTR_PROTOCOL, vec![PROTOCOL]),
        DefaultNla::new(ATTR_NAME, [name.as_bytes(), &[0]].concat()),
    ];
    match Connection::open(NETLINK_NETFILTER)?.list(LIST, &[0; 4], &attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        answers => Ok(Some(ipset::parse(&answers?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        match ports("tracer-no-such-set") {
            Ok(found) => assert_eq!(found, None),
            // Listing needs CAP_NET_ADMIN.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
