//! Where tracer runs: container, namespaces, lockdown, and the memory that it may use.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use crate::report::escape::note;

/// The memory that attaching needs, in bytes: the process, the BPF maps and the verifier all count towards the cgroup's limit.
const MEMORY_AT_START: u64 = 256 << 20;

/// Inode number of the initial PID namespace (`include/linux/proc_ns.h`, `PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// A setting that only the initial network namespace has (`net/core/sysctl_net_core.c`, `net_core_table`).
const SETTING_OF_THE_HOST: &str = "/proc/sys/net/core/dev_weight";

/// Prints on stderr what tracer will not see or may not survive here.
pub(super) fn warn() {
    let root = Path::new("/");
    if !root.join(&SETTING_OF_THE_HOST[1..]).exists() && root.join("proc/sys/net/core").exists() {
        note(
            "not in the host's network namespace: connections of the node itself are not recognised, and ports of \
             services outside 30000-32767 are not found; use hostNetwork: true or `nsenter -t 1 -n`",
        );
    }
    if fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() != FIRST_PID_NAMESPACE) {
        note(
            "not in the host's PID namespace: rules, routes and settings of other network namespaces cannot be read, and \
             causes that need them are reported as `unknown`; use hostPID: true",
        );
    }
    if let Some(limit) = memory_limit(root).filter(|&limit| limit < MEMORY_AT_START) {
        note(format_args!(
            "the cgroup allows {} MiB of memory, less than the recommended {} MiB: the kernel may kill tracer; raise \
             the limit",
            limit >> 20,
            MEMORY_AT_START >> 20
        ));
    }
}

/// Whether the kernel is locked down so far that nothing can be traced.
pub(super) fn is_confidential() -> bool {
    let level = fs::read_to_string("/sys/kernel/security/lockdown");
    level.is_ok_and(|level| level.contains("[confidentiality]"))
}

/// The advice on how to get a privilege here.
pub(super) fn how_to_get_privileges() -> &'static str {
    if geteuid().is_root() {
        // Root without capabilities is in a container or a user namespace: sudo would not help.
        "root lacks it here: in a container, set securityContext.privileged: true, or use `kubectl debug node/NODE \
         --profile=sysadmin`"
    } else {
        "run tracer as root, for example with sudo"
    }
}

/// The smallest memory limit of this process's cgroups, bytes. `None` without a limit.
fn memory_limit(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    limit_of(&text, |path| fs::read_to_string(root.join(path)))
}

/// The smallest limit of the cgroups in `/proc/self/cgroup` and of those above them. In a container the path may be that
/// on the host, where the container's own cgroup is the root of the mount.
fn limit_of(cgroups: &str, read: impl Fn(PathBuf) -> io::Result<String>) -> Option<u64> {
    let mut limits = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (mount, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = read(Path::new(mount).join(folder).join(file));
            limits.extend(limit.ok().and_then(|limit| limit.trim().parse::<u64>().ok()));
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_all_levels_counts() {
        let read = |path: PathBuf| match path.to_str() {
            Some("sys/fs/cgroup/a/b/memory.max") => Ok("max\n".to_owned()),
            Some("sys/fs/cgroup/a/memory.max") => Ok("1000\n".to_owned()),
            Some("sys/fs/cgroup/memory.max") => Ok("2000\n".to_owned()),
            Some("sys/fs/cgroup/memory/pod/memory.limit_in_bytes") => Ok("500\n".to_owned()),
            Some("sys/fs/cgroup/memory/memory.limit_in_bytes") => Ok("9223372036854771712\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        assert_eq!(limit_of("0::/a/b\n", read), Some(1000));
        assert_eq!(limit_of("4:cpu,memory:/pod\n3:pids:/x\n", read), Some(500));
        assert_eq!(limit_of("0::/c\n", read), Some(2000));
        assert_eq!(limit_of("3:pids:/x\n", read), None);
        assert_eq!(limit_of("nonsense\n", read), None);
    }
}
