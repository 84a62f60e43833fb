//! Reads the cgroup BPF programs that see the packets of the sockets in a network namespace.

#![expect(
    unsafe_code,
    reason = "no library queries the programs of a cgroup for packets"
)]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use aya::programs::loaded_programs;
use nix::libc;

use crate::facts::link::{AttachPoint, Program};

/// `BPF_PROG_QUERY` (uapi/linux/bpf.h).
const QUERY: libc::c_long = 16;
/// `BPF_CGROUP_INET_INGRESS` and `BPF_CGROUP_INET_EGRESS`.
const ATTACH: [(AttachPoint, u32); 2] = [(AttachPoint::CgroupIngress, 0), (AttachPoint::CgroupEgress, 1)];
/// The most programs that are read from one cgroup. The kernel allows 64.
const MOST_PROGRAMS: usize = 64;
/// The most cgroups that are read.
const MOST_CGROUPS: usize = 64;

/// The member `query` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    flags: u32,
    attached_with: u32,
    programs: u64,
    count: u32,
    reserved: u32,
}

/// The programs that see packets of the sockets in this network namespace: those of the cgroups of its processes, and of the
/// cgroups above them. None if cgroup v2 is not mounted.
pub fn programs(netns: u32) -> io::Result<Vec<Program>> {
    let Some(mount) = mount_point(&fs::read_to_string("/proc/self/mountinfo")?) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for cgroup in cgroups(netns) {
        let directory = mount.join(cgroup.strip_prefix("/").unwrap_or(&cgroup));
        let Ok(directory) = File::open(directory) else {
            continue;
        };
        for (at, attach_type) in ATTACH {
            for id in attached(&directory, attach_type)? {
                found.push(Program {
                    at,
                    id,
                    name: String::new(),
                    cgroup: Some(cgroup.to_string_lossy().into_owned()),
                });
            }
        }
    }
    if !found.is_empty() {
        for known in loaded_programs().flatten() {
            let same = found.iter_mut().filter(|program| program.id == known.id());
            for program in same {
                known
                    .name_as_str()
                    .unwrap_or_default()
                    .clone_into(&mut program.name);
            }
        }
    }
    Ok(found)
}

/// Where cgroup v2 is mounted, from `/proc/self/mountinfo`.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        // Mount point is the fifth field; the type follows a lone hyphen.
        let (before, after) = line.split_once(" - ")?;
        let is_v2 = after.split(' ').next() == Some("cgroup2");
        is_v2.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The cgroups of the processes in a network namespace, and those above them.
fn cgroups(netns: u32) -> BTreeSet<PathBuf> {
    let mut out = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let is_in = fs::metadata(path.join("ns/net")).is_ok_and(|ns| ns.ino() == u64::from(netns));
        if !is_in {
            continue;
        }
        let text = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        if let Some(own) = own_cgroup(&text) {
            for cgroup in own.ancestors() {
                if out.len() < MOST_CGROUPS {
                    out.insert(cgroup.to_owned());
                }
            }
        }
    }
    out
}

/// The cgroup v2 path in `/proc/PID/cgroup`. A path outside the reader's own part of the tree begins with `/..`.
fn own_cgroup(text: &str) -> Option<&Path> {
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(Path::new)?;
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.components().all(is_plain).then_some(path)
}

/// The ids of the programs that are attached to a cgroup itself.
fn attached(cgroup: &File, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut query = Query {
        target: u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        attach_type,
        programs: ids.as_mut_ptr().expose_provenance() as u64,
        count: u32::try_from(ids.len()).map_err(io::Error::other)?,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes `query`, whose size is given, and writes at most `count` ids to `programs`, which has
    // room for that many. Both live until the call returns.
    let done = unsafe { libc::syscall(libc::SYS_bpf, QUERY, &raw mut query, size_of::<Query>()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.count).map_err(io::Error::other)?;
    Ok(ids.into_iter().take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_among_the_mounts() {
        let mounts = "21 20 0:19 / /sys rw shared:7 - sysfs sysfs rw\n\
                      30 21 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(mount_point("21 20 0:19 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn a_process_has_one_cgroup_of_v2() {
        let text = "1:name=systemd:/init.scope\n0::/kubepods/pod1\n";
        assert_eq!(own_cgroup(text), Some(Path::new("/kubepods/pod1")));
        assert_eq!(own_cgroup("1:cpu:/a\n"), None);
        assert_eq!(own_cgroup("0::/../outside\n"), None);
    }

    #[test]
    fn the_own_cgroups_can_be_queried() {
        let own = crate::node::netns::current().unwrap();
        // Querying needs CAP_NET_ADMIN, and a kernel with it.
        if let Err(error) = programs(own) {
            assert!(error.raw_os_error().is_some(), "{error}");
        }
    }
}
