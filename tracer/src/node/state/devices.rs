//! Reads network devices and addresses.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    facts::{
        link::{AttachPoint, Filter, Link, Program},
        node_address::NodeAddress,
        node_state::Device,
        reading::Reading,
    },
    node::{host::Host, netlink::Connection},
};

/// `RTM_GETLINK`, `RTM_GETADDR`, `RTM_GETTFILTER` and `RTM_GETQDISC` (uapi/linux/rtnetlink.h).
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_FILTER: u16 = 46;
const GET_QDISC: u16 = 38;
/// Where tc filters of a `clsact` qdisc are attached (`TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`).
const FILTERS: [(AttachPoint, u32); 2] = [
    (AttachPoint::TcIngress, 0xffff_fff2),
    (AttachPoint::TcEgress, 0xffff_fff3),
];
/// The handle of a `clsact` or `ingress` qdisc.
const CLSACT: u32 = 0xffff_0000;
/// Lengths in bytes of `struct ifinfomsg`, `struct ifaddrmsg` and `struct tcmsg`.
const LINK_HEAD: usize = 16;
const ADDRESS_HEAD: usize = 8;
const TC_HEAD: usize = 20;

/// Reads the devices in sysfs, and from a running node the BPF programs attached to them.
pub(super) fn read(host: &Host) -> Vec<Device> {
    let mut devices: Vec<Device> = host
        .names("sys/class/net")
        .into_iter()
        .filter_map(|name| device(host, name))
        .collect();
    if host.is_live() {
        // Without privileges too, but never without a reason to ask for filters: there is a qdisc that can have some.
        let _ = read_programs(&mut devices);
    }
    devices
}

fn device(host: &Host, name: String) -> Option<Device> {
    let path = format!("sys/class/net/{name}");
    let number = |file: &str| host.word(&format!("{path}/{file}"))?.parse().ok();
    let uevent = host.text(&format!("{path}/uevent")).unwrap_or_default();
    let kind = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVTYPE="))
        .unwrap_or_default();
    Some(Device {
        // Not a device but, for example, the file `bonding_masters`.
        index: number("ifindex")?,
        mtu: number("mtu").unwrap_or_default(),
        hardware: number("type").unwrap_or_default(),
        kind: kind.to_owned(),
        is_physical: host.path(&format!("{path}/device")).exists(),
        is_up: host
            .word(&format!("{path}/operstate"))
            .is_some_and(|state| state == "up" || state == "unknown"),
        name,
        programs: Vec::new(),
    })
}

fn read_programs(devices: &mut [Device]) -> io::Result<()> {
    let mut netlink = Connection::open(NETLINK_ROUTE)?;
    let links = netlink.list(GET_LINK, &[0; LINK_HEAD], &[])?;
    for link in links.iter().filter_map(|link| Link::parse(link)) {
        if let Some(device) = devices.iter_mut().find(|device| device.index == link.index) {
            device.programs = link.programs;
        }
    }
    let qdiscs = netlink.list(GET_QDISC, &[0; TC_HEAD], &[])?;
    for index in qdiscs.iter().filter_map(|qdisc| has_filters(qdisc)) {
        let Some(device) = devices.iter_mut().find(|device| device.index == index) else {
            continue;
        };
        for (at, parent) in FILTERS {
            let mut head = [0; TC_HEAD];
            head[4..8].copy_from_slice(&index.to_ne_bytes());
            head[12..16].copy_from_slice(&parent.to_ne_bytes());
            let filters = netlink.list(GET_FILTER, &head, &[]).unwrap_or_default();
            let parsed = filters.iter().filter_map(|filter| Filter::parse(filter));
            device.programs.extend(parsed.filter_map(|filter| match filter {
                Filter::Bpf(id) => Some(Program {
                    at,
                    id,
                    name: String::new(),
                    cgroup: None,
                }),
                Filter::Other => None,
            }));
        }
    }
    Ok(())
}

/// The index of the device of a qdisc that can have filters at ingress or egress.
fn has_filters(qdisc: &[u8]) -> Option<u32> {
    let word = |at: usize| {
        let bytes = qdisc.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    (word(8)? == CLSACT).then(|| word(4)).flatten()
}

/// Reads the addresses.
pub(super) fn addresses(host: &Host) -> Reading<Vec<NodeAddress>> {
    if !host.is_live() {
        return Reading::Failed("only files were given, and addresses are read by netlink".to_owned());
    }
    let list = || Connection::open(NETLINK_ROUTE)?.list(GET_ADDRESS, &[0; ADDRESS_HEAD], &[]);
    Reading::of(list()).map(|messages| {
        let parsed = messages.iter().filter_map(|message| NodeAddress::parse(message));
        parsed.collect()
    })
}
