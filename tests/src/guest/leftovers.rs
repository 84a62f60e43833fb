//! What a scenario must not leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::cancel::Cancel;
use super::topology::{ipvs_connections, names_in};
use super::{netns, sysctl, tool};

/// How long things that end by themselves may take: a device's last reference, a conntrack entry that dies.
const SETTLE: Duration = Duration::from_secs(5);

/// All on the node that a scenario could have left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inventory(BTreeSet<String>);

impl Inventory {
    /// Takes stock.
    pub(super) fn take() -> Result<Self> {
        let mut all = BTreeSet::new();
        let mut add = |what: &str, names: Vec<String>| {
            all.extend(names.into_iter().map(|name| format!("{what} {name}")));
        };
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        add("device", names_in("/sys/class/net"));
        add("netns", names_in(netns::FOLDER));
        let services = fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
        add(
            "IPVS service",
            services.lines().skip(3).map(str::to_owned).collect(),
        );
        add("IPVS connection", ipvs_connections());
        add("rule", lines(tool::run("nft list ruleset")?));
        add("IP set", lines(tool::run("ipset list -n")?));
        // Whoever traces must have taken his probes away.
        let probes = fs::read_to_string("/sys/kernel/debug/kprobes/list").unwrap_or_default();
        add("kprobe", lines(probes));
        let tracked = sysctl::read("net.netfilter.nf_conntrack_count")?;
        add("count of tracked connections:", vec![tracked]);
        for name in ["conn_reuse_mode", "expire_nodest_conn", "conntrack"] {
            let name = format!("net.ipv4.vs.{name}");
            add("sysctl", vec![format!("{name} = {}", sysctl::read(&name)?)]);
        }
        Ok(Self(all))
    }

    /// Waits until the node is again as it was, and returns what is there that was not.
    pub(super) fn strangers(&self) -> Result<Vec<String>> {
        let mut now = Self::take()?;
        Cancel::default().wait_until(SETTLE, || {
            now = Self::take()?;
            Ok(now == *self)
        })?;
        Ok(now.0.difference(&self.0).cloned().collect())
    }
}
