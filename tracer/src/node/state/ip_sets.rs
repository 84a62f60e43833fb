//! Reads names, types and revisions of IP sets, without their elements.

use std::{collections::BTreeMap, io};

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    facts::{ipset, modules::Modules, node_state::IpSet, reading::Reading},
    node::netlink::Connection,
};

/// `NFNL_SUBSYS_IPSET` with `IPSET_CMD_LIST` and `IPSET_CMD_TYPE` (`uapi/linux/netfilter/ipset/ip_set.h`).
const LIST: u16 = 6 << 8 | 7;
const TYPE: u16 = 6 << 8 | 0xd;
/// The oldest protocol version that current kernels support.
const PROTOCOL: u8 = 6;
/// Attributes.
const ATTR_PROTOCOL: u16 = 1;
const ATTR_TYPE: u16 = 3;
const ATTR_FAMILY: u16 = 5;
const ATTR_FLAGS: u16 = 6;
/// `IPSET_FLAG_LIST_HEADER`, in network byte order: without the elements.
const HEADER_ONLY: u32 = 1 << 2;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;

/// Reads the sets of the calling thread's network namespace.
pub(super) fn read(modules: &Modules) -> Reading<Vec<IpSet>> {
    // Without the module, the request would make the kernel load it.
    if !modules.has("ip_set") {
        return Reading::Absent;
    }
    Reading::of(list())
}

fn list() -> io::Result<Vec<IpSet>> {
    let mut netlink = Connection::open(NETLINK_NETFILTER)?;
    let head = [IPV4, 0, 0, 0];
    let attributes = [
        DefaultNla::new(ATTR_PROTOCOL, vec![PROTOCOL]),
        // The kernel takes it for network byte order whether or not it is marked as such.
        DefaultNla::new(ATTR_FLAGS | NET_BYTE_ORDER, HEADER_ONLY.to_be_bytes().to_vec()),
    ];
    let answers = netlink.list(LIST, &head, &attributes)?;
    let mut sets: Vec<IpSet> = answers
        .iter()
        .filter_map(|answer| ipset::header(answer))
        .collect();
    // A set that came in several messages.
    sets.dedup_by(|one, other| one.name == other.name);
    let mut newest: BTreeMap<String, Option<u8>> = BTreeMap::new();
    for set in &mut sets {
        // The type is in use, so its module is loaded.
        let revision = newest.entry(set.kind.clone()).or_insert_with(|| {
            let name = [set.kind.as_bytes(), &[0]].concat();
            let attributes = [
                DefaultNla::new(ATTR_PROTOCOL, vec![PROTOCOL]),
                DefaultNla::new(ATTR_TYPE, name),
                DefaultNla::new(ATTR_FAMILY, vec![IPV4]),
            ];
            let answers = netlink.request(TYPE, &head, &attributes).ok()?;
            ipset::newest_revision(answers.first()?)
        });
        set.newest = *revision;
    }
    Ok(sets)
}

/// `NLA_F_NET_BYTEORDER`.
const NET_BYTE_ORDER: u16 = 1 << 14;
