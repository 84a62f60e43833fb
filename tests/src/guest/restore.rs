//! Restores what the shell commands of steps may have changed on the node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::leftovers::{Inventory, Kind, qdiscs, routing};
use super::tool;

/// The folders of the sysctls that a step may change.
const SYSCTLS: [&str; 4] = [
    "/proc/sys/net/core",
    "/proc/sys/net/ipv4",
    "/proc/sys/net/ipv6",
    "/proc/sys/net/netfilter",
];

/// The values of all network sysctls that can be read and written.
#[derive(Debug, Default)]
pub(super) struct Sysctls(BTreeMap<PathBuf, String>);

impl Sysctls {
    /// Reads the values.
    pub(super) fn take() -> Self {
        let mut all = BTreeMap::new();
        for folder in SYSCTLS {
            collect(Path::new(folder), &mut all);
        }
        Self(all)
    }

    /// Writes back those that have changed. A sysctl that is gone belonged to a device or a module.
    pub(super) fn restore(&self) -> Result<()> {
        for (path, value) in &self.0 {
            if fs::read_to_string(path).is_ok_and(|now| now != *value) {
                fs::write(path, value).with_context(|| format!("cannot restore {}", path.display()))?;
            }
        }
        Ok(())
    }
}

fn collect(folder: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => collect(&path, all),
            Ok(metadata) if metadata.permissions().mode() & 0o600 == 0o600 => {
                if let Ok(value) = fs::read_to_string(&path) {
                    all.insert(path, value);
                }
            }
            _ => {}
        }
    }
}

/// Removes addresses, routes and routing rules that were not there before, and what was added to the loopback
/// device. All other devices are gone by now, or existed before and must not be changed.
pub(super) fn routes(before: &Inventory) -> Result<()> {
    tool::run("ip link set lo up")?;
    for line in routing()?.lines() {
        if before.has(Kind::Routing, line) {
            continue;
        }
        // `1: lo    inet 10.1.2.3/32 scope global lo\ ...`, `32765:       from all lookup 100`, or a route as
        // `ip` prints it.
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.first().and_then(|word| word.strip_suffix(':'));
        let command = match (number, words.as_slice()) {
            (Some(_), [_, device, _, address, ..]) if line.contains("valid_lft") => {
                format!("ip addr del {address} dev {device}")
            }
            (Some(priority), _) => format!("ip rule del priority {priority}"),
            (None, ["ipv6", priority, ..]) => {
                format!("ip -6 rule del priority {}", priority.trim_end_matches(':'))
            }
            // A local route goes with its address.
            (None, ["local" | "broadcast", ..]) => continue,
            // Only routes of IPv6 have a preference.
            (None, _) if line.contains(" pref ") => format!("ip -6 route del {line}"),
            (None, _) => format!("ip route del {line}"),
        };
        tool::run(&command)?;
    }
    // Devices of modules that were not there before go with the modules.
    let of_loopback = |line: &String| line.split(' ').any(|word| word == "lo");
    if qdiscs()?
        .iter()
        .any(|line| of_loopback(line) && !before.has(Kind::Qdisc, line))
    {
        tool::run("tc qdisc del dev lo root")?;
    }
    Ok(())
}

/// Flushes the tables of iptables-legacy: the module of a table that has rules cannot be removed.
pub(super) fn legacy_tables() -> Result<()> {
    for (names, command) in [
        ("/proc/net/ip_tables_names", "iptables-legacy"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
    ] {
        for table in fs::read_to_string(names).unwrap_or_default().lines() {
            tool::run(&format!("{command} -t {table} -F"))?;
            tool::run(&format!("{command} -t {table} -X"))?;
        }
    }
    Ok(())
}
