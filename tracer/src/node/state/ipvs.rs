//! Reads IPVS: services from its file, and the timeout of TCP connections by netlink.

use std::io;

use netlink_packet_core::DefaultNla;
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::{
    facts::{
        ipvs::parse_services,
        netlink::{attribute, attributes},
        node_state::Ipvs,
        reading::Reading,
    },
    node::{host::Host, ipvs::ticks_per_second, netlink::Connection},
};

/// `GENL_ID_CTRL`, its `CTRL_CMD_GETFAMILY` and the attributes for a family's name and number.
const CTRL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;
/// `IPVS_CMD_GET_CONFIG` and its `IPVS_CMD_ATTR_TIMEOUT_TCP` (`uapi/linux/ip_vs.h`).
const GET_CONFIG: u8 = 13;
const TIMEOUT_TCP: u16 = 4;

/// Reads IPVS of the node's network namespace.
pub(super) fn read(host: &Host) -> Reading<Ipvs> {
    let text = match std::fs::read_to_string(host.net_path("ip_vs")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Reading::Absent,
        Err(error) => return Reading::of(Err(error)),
    };
    let services = ticks_per_second().and_then(|ticks| parse_services(text.as_bytes(), ticks));
    // The file shows that the module is loaded: asking for its family loads nothing.
    let tcp_timeout_s = if host.is_live() {
        Reading::of(timeout())
    } else {
        Reading::Failed("only files were given, and the timeout is read by netlink".to_owned())
    };
    Reading::of(services).map(|services| Ipvs {
        services,
        buckets: Ipvs::buckets_in(&text),
        tcp_timeout_s,
    })
}

fn timeout() -> io::Result<u32> {
    let mut netlink = Connection::open(NETLINK_GENERIC)?;
    let name = [DefaultNla::new(FAMILY_NAME, b"IPVS\0".to_vec())];
    let answers = netlink.request(CTRL, &[GET_FAMILY, 1, 0, 0], &name)?;
    let family = answers
        .iter()
        .flat_map(|answer| attributes(answer.get(4..).unwrap_or_default()))
        .find(|&(kind, _)| kind == FAMILY_ID)
        .and_then(|(_, value)| value.try_into().ok().map(u16::from_ne_bytes))
        .ok_or_else(|| io::Error::other("the kernel reported no generic netlink family for IPVS"))?;
    let answers = netlink.request(family, &[GET_CONFIG, 1, 0, 0], &[])?;
    answers
        .iter()
        .find_map(|answer| attribute(answer.get(4..)?, TIMEOUT_TCP)?.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or_else(|| io::Error::other("the kernel reported no timeouts of IPVS"))
}
