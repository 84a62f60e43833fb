//! Reads the objects of a network namespace that name its ports for services.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::{ipset, iptables, ipvs, max_age::MAX_AGE, netns, nft};
use crate::facts::{
    kube_proxy::{NO_ENDPOINTS, NODE_PORTS, TABLE},
    nft::{
        Family,
        map::Map,
        port_set::SetName,
        rule::{Decides, Rule},
    },
    port::index::{PortIndex, Sources},
    port_range::PortRanges,
};

/// The IP sets of NodePorts in kube-proxy's IPVS mode, and whether they are for IPv6.
const SETS: [(&str, bool); 4] = [
    ("KUBE-NODE-PORT-TCP", false),
    ("KUBE-NODE-PORT-LOCAL-TCP", false),
    ("KUBE-6-NODE-PORT-TCP", true),
    ("KUBE-6-NODE-PORT-LOCAL-TCP", true),
];
/// The legacy tables that are read.
const TABLES: [&str; 3] = ["nat", "raw", "filter"];
/// The most maps that are read from one table.
const MAX_MAPS: usize = 32;
/// The most sets of ports that are read.
const MAX_SETS: usize = 64;

/// The objects of a network namespace by port, and when they were read.
#[derive(Debug)]
pub(super) struct PortObjects {
    at: Instant,
    /// The same as monotonic nanoseconds.
    pub(super) at_ns: u64,
    /// How long reading took.
    cost: Duration,
    /// Whether everything could be read.
    pub(super) is_complete: bool,
    pub(super) index: PortIndex,
}

impl PortObjects {
    /// Reading takes at most this part of the time: 1/10.
    const SHARE: u32 = 10;

    /// Whether it is time to read them again.
    pub(super) fn is_due(&self) -> bool {
        self.at.elapsed() > MAX_AGE.max(self.cost * Self::SHARE)
    }

    /// Reads a network namespace. `None` if it cannot be entered.
    pub(super) fn read(netns: u32) -> Option<Self> {
        let at = Instant::now();
        let at_ns = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).ok()?;
        let (sources, is_complete) = netns::inside(netns, sources).ok()?;
        Some(Self {
            at,
            at_ns: u64::try_from(at_ns.as_nanos()).ok()?,
            index: PortIndex::new(&sources),
            is_complete,
            cost: at.elapsed(),
        })
    }
}

/// Everything in the calling thread's network namespace that can name a port, and whether all of it could be read.
fn sources() -> (Sources, bool) {
    let mut sources = Sources::default();
    let nft = nft::is_there();
    let results = [
        put(&mut sources.chains, nft::chains()),
        !nft || put(&mut sources.rules, nft::rules(None, None)),
        put(&mut sources.tables, iptables::tables(&TABLES)),
        put(&mut sources.services, ipvs::services()),
        SETS.iter().all(|&(name, is_v6)| match ipset::ports(name) {
            Ok(ports) => {
                let set = ports.map(|ports| (name.to_owned(), is_v6, ports));
                sources.ip_sets.extend(set);
                true
            }
            Err(_) => false,
        }),
    ];
    let sets: BTreeSet<SetName> = sources.rules.iter().filter_map(SetName::of).collect();
    let maps = !nft
        || put(&mut sources.maps, maps(&sources.rules))
            & put(&mut sources.port_sets, port_sets(&sets))
            & (sets.len() <= MAX_SETS);
    (sources, maps && results.iter().all(|&read| read))
}

/// Keeps what was read. Returns whether it could be.
fn put<T>(place: &mut Vec<T>, read: io::Result<Vec<T>>) -> bool {
    let is_read = read.is_ok();
    *place = read.unwrap_or_default();
    is_read
}

/// The verdict maps that rules use, and kube-proxy's own whether a rule uses them or not.
fn maps(rules: &[Rule]) -> io::Result<Vec<Map>> {
    let mut wanted: Vec<(Family, &str, &str)> = Vec::new();
    for family in [Family::Ip, Family::Ip6] {
        wanted.extend([NODE_PORTS, NO_ENDPOINTS].map(|name| (family, TABLE, name)));
    }
    for rule in rules {
        if let Decides::Map(name) = &rule.decides {
            let of_rule = (rule.family, rule.table.as_str(), name.as_str());
            let known = wanted.iter().filter(|map| map.1 == rule.table).count();
            if known < MAX_MAPS && !wanted.contains(&of_rule) {
                wanted.push(of_rule);
            }
        }
    }
    wanted
        .into_iter()
        .map(|(family, table, name)| nft::map(family, table, name))
        .collect()
}

/// The ports in the sets and maps by which rules match or translate them.
fn port_sets(wanted: &BTreeSet<SetName>) -> io::Result<Vec<(SetName, PortRanges)>> {
    let wanted = wanted.iter().take(MAX_SETS);
    wanted
        .map(|name| nft::ports(name).map(|ports| (name.clone(), ports)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        let own = netns::current().unwrap();
        assert!(PortObjects::read(own).is_some_and(|objects| !objects.is_due()));
        assert!(PortObjects::read(1).is_none());
    }
}
