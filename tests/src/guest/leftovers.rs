//! Detects what a scenario leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::cancel::Cancel;
use super::node_state::{ipvs_connections, names_in};
use super::{modules, netns, process_table, sysctl, tool};

/// How long self-terminating things may take: a device's last reference, a dying conntrack entry.
const SETTLE: Duration = Duration::from_secs(5);

/// A kind of thing on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Device,
    Netns,
    Module,
    Process,
    IpvsService,
    IpvsConnection,
    Rule,
    IpSet,
    /// Addresses, routes and routing rules, as `ip` prints them.
    Routing,
    Qdisc,
    Kprobe,
    Tracked,
    Sysctl,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Netns => "netns",
            Self::Module => "module",
            Self::Process => "process",
            Self::IpvsService => "IPVS service",
            Self::IpvsConnection => "IPVS connection",
            Self::Rule => "rule",
            Self::IpSet => "IP set",
            Self::Routing => "address, route or routing rule",
            Self::Qdisc => "qdisc",
            Self::Kprobe => "kprobe",
            Self::Tracked => "count of tracked connections:",
            Self::Sysctl => "sysctl",
        }
    }
}

/// Everything on the node that a scenario could leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inventory(BTreeMap<Kind, BTreeSet<String>>);

impl Inventory {
    /// Takes a full inventory.
    pub(super) fn take() -> Result<Self> {
        Self::take_of(true)
    }

    /// Takes an inventory; unless `thorough`, without what only shell commands of steps can change.
    fn take_of(thorough: bool) -> Result<Self> {
        let mut all = BTreeMap::new();
        let mut add = |kind: Kind, names: Vec<String>| {
            all.insert(kind, BTreeSet::from_iter(names));
        };
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        add(Kind::Device, names_in("/sys/class/net"));
        add(Kind::Netns, names_in(netns::FOLDER));
        add(Kind::Module, modules::loaded()?.into_iter().collect());
        add(Kind::Process, process_table::others());
        let services = fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
        add(
            Kind::IpvsService,
            services.lines().skip(3).map(str::to_owned).collect(),
        );
        add(Kind::IpvsConnection, ipvs_connections());
        add(Kind::Rule, lines(tool::run("nft list ruleset")?));
        add(Kind::IpSet, lines(tool::run("ipset list -n")?));
        if thorough {
            add(Kind::Routing, lines(routing()?));
            add(Kind::Qdisc, qdiscs()?);
        }
        // A tracer must have removed its probes.
        let probes = fs::read_to_string("/sys/kernel/debug/kprobes/list").unwrap_or_default();
        add(Kind::Kprobe, lines(probes));
        add(
            Kind::Tracked,
            vec![sysctl::read("net.netfilter.nf_conntrack_count")?],
        );
        let mut sysctls = Vec::new();
        for name in ["conn_reuse_mode", "expire_nodest_conn", "conntrack"] {
            let name = format!("net.ipv4.vs.{name}");
            sysctls.push(format!("{name} = {}", sysctl::read(&name)?));
        }
        add(Kind::Sysctl, sysctls);
        Ok(Self(all))
    }

    /// Whether a thing of this kind and name is there.
    pub(super) fn has(&self, kind: Kind, name: &str) -> bool {
        self.of(kind).contains(name)
    }

    /// All things of a kind.
    pub(super) fn of(&self, kind: Kind) -> &BTreeSet<String> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        self.0.get(&kind).unwrap_or(&NONE)
    }

    /// Waits until the node matches this inventory again, and returns the differences that remain.
    pub(super) fn differences(&self, thorough: bool) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        Cancel::default().wait_until(SETTLE, || {
            let now = Self::take_of(thorough)?;
            differences.clear();
            for kind in now.0.keys().copied() {
                let (word, is, was) = (kind.word(), now.of(kind), self.of(kind));
                differences.extend(is.difference(was).map(|name| format!("{word} {name}")));
                differences.extend(was.difference(is).map(|name| format!("no {word} {name}")));
            }
            Ok(differences.is_empty())
        })?;
        Ok(differences)
    }
}

/// The node's addresses, routes and routing rules, one per line.
pub(super) fn routing() -> Result<String> {
    let mut lines = tool::run_with_input(
        "ip -o -batch -",
        "addr show dev lo\nroute show table all\nrule show\n",
    )?;
    // `rule show` lists those of IPv4 only.
    for rule in tool::run("ip -6 -o rule show")?.lines() {
        lines.push_str("\nipv6 ");
        lines.push_str(rule);
    }
    Ok(lines)
}

/// The qdiscs of all devices, without their reference counts.
pub(super) fn qdiscs() -> Result<Vec<String>> {
    let all = tool::run("tc qdisc show")?;
    let known = |line: &str| {
        line.split(" refcnt ")
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    };
    Ok(all.lines().map(known).collect())
}
