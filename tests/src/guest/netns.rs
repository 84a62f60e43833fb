//! Network namespaces, as `ip netns` names them.

use std::fmt;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::{sysctl, tool};

/// Where `ip netns` keeps the names.
pub(super) const FOLDER: &str = "/run/netns";

/// A netns: the node's own, or another one.
#[derive(Debug, Clone)]
pub(super) struct Netns {
    /// `None` for the node's own.
    name: Option<String>,
}

impl Netns {
    /// Creates a netns, named as `ip netns add` would name it, with IPv6 only if it gets such an address, and
    /// without forwarding (which it would inherit from the node). This takes a thread instead of a program,
    /// because programs are slow to start in an emulated guest.
    pub(super) fn create(name: &str, address: IpAddr) -> Result<Self> {
        fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
        let path = Path::new(FOLDER).join(name);
        File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).context("cannot create a netns")?;
                let own = Some("/proc/thread-self/ns/net");
                mount(own, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .with_context(|| format!("cannot bind a netns to {}", path.display()))?;
                if address.is_ipv6() {
                    sysctl::ipv6().try_for_each(|(name, value)| sysctl::write(&name, value))?;
                } else {
                    sysctl::no_ipv6()?;
                }
                sysctl::write("net.ipv4.ip_forward", 0)
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the thread that created a netns panicked")))
        })?;
        Ok(Self {
            name: Some(name.to_owned()),
        })
    }

    /// The node's own.
    pub(super) const fn node() -> Self {
        Self { name: None }
    }

    /// Its name, unless it is the node's own.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Runs `ip` in it on each line, after setting loopback up.
    pub(super) fn ip(&self, lines: &str) -> Result<()> {
        let lines = format!("link set lo up\n{lines}");
        let netns = self
            .name
            .as_ref()
            .map_or_else(String::new, |name| format!("-n {name} "));
        tool::run_with_input(&format!("ip {netns}-batch -"), &lines)?;
        Ok(())
    }

    /// Moves the calling thread from the node's netns into this one, permanently.
    pub(super) fn enter(&self) -> Result<()> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let path = format!("{FOLDER}/{name}");
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter the netns {name}"))
    }

    /// Runs a closure in it and waits for the result.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            let panicked = |_| Err(anyhow!("a thread in {self} panicked"));
            inside.join().unwrap_or_else(panicked)
        })
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => f.write_str("the node's netns"),
            Some(name) => write!(f, "the netns {name}"),
        }
    }
}

/// Removes the name of a netns; the netns itself ends with its last process, socket and device.
pub(super) fn delete(name: &str) -> Result<()> {
    let path = Path::new(FOLDER).join(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // It was never created.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

/// `netns add NAME` and `netns delete NAME`, for steps: `ip netns add` would mount a folder over the names of all others.
pub(super) fn command(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("add"), Some(name)) => Netns::create(&name, IpAddr::V4(Ipv4Addr::UNSPECIFIED)).map(drop),
        (Some("delete"), Some(name)) => delete(&name),
        _ => Err(anyhow!("expected `add NAME` or `delete NAME`")),
    }
}
