//! From the kernel's first process to an empty node, and powering off.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::{sysctl, tool};

/// The mounts: file system, mount point.
const MOUNTS: [(&str, &str); 10] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tracefs", "/sys/kernel/tracing"),
    ("debugfs", "/sys/kernel/debug"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts a node's usual file systems.
pub(super) fn mount_all() -> Result<()> {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
        match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot mount {target}")),
        }
    }
    // Some versions of `ip netns` use /var/run.
    if fs::symlink_metadata("/var/run").is_ok_and(|metadata| metadata.is_dir()) {
        fs::remove_dir("/var/run").context("cannot remove /var/run")?;
    }
    if fs::symlink_metadata("/var/run").is_err() {
        fs::create_dir_all("/var").context("cannot create /var")?;
        std::os::unix::fs::symlink("/run", "/var/run").context("cannot link /var/run")?;
    }
    Ok(())
}

/// Prepares the node for every scenario: loopback up, and IPv6 off (its neighbour discovery would add noise
/// on every new device).
pub(super) fn prepare_node() -> Result<()> {
    sysctl::write("kernel.hostname", "node-1")?;
    sysctl::no_ipv6()?;
    tool::run("ip link set lo up")?;
    Ok(())
}

/// Powers the machine off.
pub(super) fn power_off() -> ! {
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("lab-guest: cannot power off: {error}");
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}
