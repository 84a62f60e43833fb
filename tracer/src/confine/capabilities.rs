//! Capabilities of the calling thread. The kernel keeps them for each thread.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// The capabilities that tracing needs once it is attached, besides `CAP_DAC_OVERRIDE` (see [`super::folder`]).
pub(super) const TRACING: [Capability; 7] = [
    // Loads the programs of further hooks, and those of modules that are loaded later.
    Capability::CAP_BPF,
    // Attaches them.
    Capability::CAP_PERFMON,
    // Enters network namespaces; covers the two above on kernels and distributions that require it.
    Capability::CAP_SYS_ADMIN,
    // `/proc/PID/ns` and `/proc/PID/fd` of other users' processes (`fs/proc/base.c`, `proc_pid_get_link`).
    Capability::CAP_SYS_PTRACE,
    // The directory `/proc/PID/fd` of other users' processes is readable by its owner only, and files of `/proc/net` in a user
    // namespace belong to its root (`fs/proc/fd.c`, `proc_fd_permission`).
    Capability::CAP_DAC_READ_SEARCH,
    // The addresses in `/proc/kallsyms`, which is read again after a module was loaded.
    Capability::CAP_SYSLOG,
    // Rules, IPVS services, and BPF programs of cgroups.
    Capability::CAP_NET_ADMIN,
];

/// Gives up all capabilities of the calling thread but these. A capability that it does not have is not gained.
pub(super) fn keep(wanted: &[Capability]) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted
        .into_iter()
        .filter(|capability| wanted.contains(capability))
        .collect();
    // The other sets only matter to programs that the process would run. Giving those up needs CAP_SETPCAP.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all() {
            // The kernel may not know it.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    caps::set(None, CapSet::Effective, &kept)?;
    // The kernel removes from the ambient set what is not permitted or not inheritable.
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)
}

/// Names of the capabilities that the calling thread has.
pub(super) fn names() -> Vec<String> {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    sorted(permitted.into_iter())
}

/// Names of the capabilities in a bit set of `/proc/PID/status`.
pub(super) fn names_of(bits: u64) -> Vec<String> {
    sorted(
        caps::all()
            .into_iter()
            .filter(|capability| bits & capability.bitmask() != 0),
    )
}

fn sorted(capabilities: impl Iterator<Item = Capability>) -> Vec<String> {
    let mut capabilities: Vec<Capability> = capabilities.collect();
    capabilities.sort_by_key(Capability::index);
    capabilities.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_the_names_of_the_manual() {
        assert_eq!(names_of(1 << 21 | 1 << 39), ["CAP_SYS_ADMIN", "CAP_BPF"]);
        assert!(names_of(0).is_empty());
    }

    #[test]
    fn a_thread_keeps_only_what_it_asks_for() {
        let thread = std::thread::spawn(|| {
            keep(&[Capability::CAP_SYSLOG]).expect("capabilities can be given up");
            (
                names(),
                caps::read(None, CapSet::Effective).expect("capabilities"),
            )
        });
        let (permitted, effective) = thread.join().expect("no panic");
        // Ordinary users have none.
        assert!(
            permitted.is_empty() || permitted == ["CAP_SYSLOG"],
            "{permitted:?}"
        );
        assert_eq!(effective.len(), permitted.len());
    }
}
