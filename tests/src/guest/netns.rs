//! Network namespaces, as `ip netns` names them.

use std::fs::File;
use std::net::IpAddr;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::{sysctl, tool};

/// Where `ip netns` keeps the names.
pub(super) const FOLDER: &str = "/run/netns";

/// A netns other than the node's.
#[derive(Debug, Clone)]
pub(super) struct Netns {
    name: String,
}

impl Netns {
    /// Makes a new one: loopback up, IPv6 only if it is to have addresses of that, no forwarding (which it would inherit
    /// from the node).
    pub(super) fn create(name: &str, address: IpAddr) -> Result<Self> {
        tool::run(&format!("ip netns add {name}"))?;
        let netns = Self {
            name: name.to_owned(),
        };
        netns.run(|| {
            if address.is_ipv6() {
                sysctl::ipv6().try_for_each(|(name, value)| sysctl::write(&name, value))?;
            } else {
                sysctl::no_ipv6()?;
            }
            sysctl::write("net.ipv4.ip_forward", 0)
        })?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it on each line.
    pub(super) fn ip(&self, lines: &str) -> Result<()> {
        tool::feed(&format!("ip -n {} -batch -", self.name), lines)?;
        Ok(())
    }

    /// Moves the calling thread into it, for good.
    pub(super) fn enter(&self) -> Result<()> {
        let path = format!("{FOLDER}/{}", self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter the netns {}", self.name))
    }

    /// Runs something in it and waits for it.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            let panicked = |_| Err(anyhow!("a thread in the netns {} panicked", self.name));
            inside.join().unwrap_or_else(panicked)
        })
    }
}
