//! Reads the network devices of a network namespace, and the BPF programs attached to them.

use std::{collections::BTreeSet, io, net::IpAddr};

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::netlink::Connection;
use crate::facts::{
    link::{AttachPoint, Filter, Link, Program},
    neighbour::Neighbour,
};

/// `RTM_GETLINK`, `RTM_GETNEIGH` and `RTM_GETTFILTER` (uapi/linux/rtnetlink.h).
const GET_LINK: u16 = 18;
const GET_NEIGHBOUR: u16 = 30;
const GET_FILTER: u16 = 46;
/// Lengths in bytes of `struct ifinfomsg`, `struct ndmsg` and `struct tcmsg`.
const LINK_HEAD: usize = 16;
const NEIGHBOUR_HEAD: usize = 12;
const FILTER_HEAD: usize = 20;
/// Where tc filters are attached: the parent (`uapi/linux/pkt_sched.h`), and the type of TCX links.
const TC: [(AttachPoint, u32, TcAttachType); 2] = [
    (AttachPoint::TcIngress, 0xffff_fff2, TcAttachType::Ingress),
    (AttachPoint::TcEgress, 0xffff_fff3, TcAttachType::Egress),
];

/// Reads the devices of the calling thread's network namespace, and the tc filters of those with these indexes.
pub fn all(with_filters: &BTreeSet<u32>) -> io::Result<Vec<Link>> {
    let mut netlink = Connection::open(NETLINK_ROUTE)?;
    let links = netlink.list(GET_LINK, &[0; LINK_HEAD], &[])?;
    let mut links: Vec<Link> = links.iter().filter_map(|link| Link::parse(link)).collect();
    for link in links.iter_mut().filter(|link| with_filters.contains(&link.index)) {
        read_filters(&mut netlink, link);
    }
    name_programs(&mut links);
    Ok(links)
}

/// Reads the neighbour entries for these addresses, of the calling thread's network namespace.
pub fn neighbours(addresses: &BTreeSet<IpAddr>) -> io::Result<Vec<Neighbour>> {
    let mut netlink = Connection::open(NETLINK_ROUTE)?;
    let entries = netlink.list(GET_NEIGHBOUR, &[0; NEIGHBOUR_HEAD], &[])?;
    let entries = entries.iter().filter_map(|entry| Neighbour::parse(entry));
    Ok(entries
        .filter(|entry| addresses.contains(&entry.address))
        .collect())
}

/// Reads the tc filters of a device. What cannot be read counts as a filter of another kind.
fn read_filters(netlink: &mut Connection, link: &mut Link) {
    for (at, parent, tcx) in TC {
        let mut head = [0; FILTER_HEAD];
        head[4..8].copy_from_slice(&link.index.to_ne_bytes());
        head[12..16].copy_from_slice(&parent.to_ne_bytes());
        let mut has_others = false;
        match netlink.list(GET_FILTER, &head, &[]) {
            Ok(filters) => {
                for filter in filters.iter().filter_map(|filter| Filter::parse(filter)) {
                    match filter {
                        Filter::Bpf(id) => add(link, at, id),
                        Filter::Other => has_others = true,
                    }
                }
            }
            // Without a qdisc for filters there are none.
            Err(error) => {
                let errno = error.raw_os_error().map(Errno::from_raw);
                has_others = !matches!(errno, Some(Errno::ENOENT | Errno::EINVAL));
            }
        }
        // Kernels before 6.6 have no TCX.
        if let Ok((_, programs)) = SchedClassifier::query_tcx(&link.name, tcx) {
            for program in programs {
                add(link, at, program.id());
            }
        }
        if has_others {
            link.other_filters.push(at);
        }
    }
}

fn add(link: &mut Link, at: AttachPoint, id: u32) {
    link.programs.push(Program {
        at,
        id,
        name: String::new(),
        cgroup: None,
    });
}

/// Looks up the names of programs.
fn name_programs(links: &mut [Link]) {
    if links.iter().all(|link| link.programs.is_empty()) {
        return;
    }
    for known in loaded_programs().flatten() {
        let programs = links.iter_mut().flat_map(|link| &mut link.programs);
        for program in programs.filter(|program| program.id == known.id()) {
            known
                .name_as_str()
                .unwrap_or_default()
                .clone_into(&mut program.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_there() {
        let links = all(&BTreeSet::new()).unwrap();
        assert!(links.iter().any(|link| link.name == "lo" && link.index != 0));
    }
}
