//! Network namespaces, as `ip netns` names them.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::{sysctl, tool};

/// Where `ip netns` keeps the names.
pub(super) const FOLDER: &str = "/run/netns";

/// A netns other than the node's.
#[derive(Debug, Clone)]
pub(super) struct Netns {
    name: String,
}

impl Netns {
    /// Makes a new one, named as `ip netns add` would name it: IPv6 only if it is to have addresses of that, no
    /// forwarding (which it would inherit from the node). It takes a thread and no program, for programs take their time
    /// in an emulated guest.
    pub(super) fn create(name: &str, address: IpAddr) -> Result<Self> {
        fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
        let path = Path::new(FOLDER).join(name);
        File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).context("cannot make a netns")?;
                let own = Some("/proc/thread-self/ns/net");
                mount(own, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .with_context(|| format!("cannot name a netns {}", path.display()))?;
                if address.is_ipv6() {
                    sysctl::ipv6().try_for_each(|(name, value)| sysctl::write(&name, value))?;
                } else {
                    sysctl::no_ipv6()?;
                }
                sysctl::write("net.ipv4.ip_forward", 0)
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a thread that made a netns panicked")))
        })?;
        Ok(Self {
            name: name.to_owned(),
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it on each line, with loopback up before the first.
    pub(super) fn ip(&self, lines: &str) -> Result<()> {
        let lines = format!("link set lo up\n{lines}");
        tool::feed(&format!("ip -n {} -batch -", self.name), &lines)?;
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

/// Takes the name of a netns away; without one, the netns ends with its last process, socket and device.
pub(super) fn delete(name: &str) -> Result<()> {
    let path = Path::new(FOLDER).join(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // It was not even made.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}
