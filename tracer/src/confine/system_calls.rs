//! The system calls that tracer makes once it is confined.
//!
//! The lists hold what was seen with glibc and musl (`strace -f`, and the lab, where a denied call fails the scenario), and
//! what Rust's library, the allocator and the event loop may call in other circumstances.

use nix::libc::{self, c_long};
use seccompiler::{BackendError, SeccompRule};

use super::filter::{Calls, Rules, equal, masked, other};

/// Of every thread: memory, threads, signals, clocks, and files that are open.
const ALL: &[c_long] = &[
    // Files.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_close,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getcwd,
    // Waiting, and what the event loop is made of.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    // Threads.
    libc::SYS_arch_prctl,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Clocks.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_time,
    // The process itself.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // They only ever take rights away.
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
];

/// To rename and remove files.
const NAMES: &[c_long] = &[
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// Of live tracing: BPF, other network namespaces, `/proc` and netlink.
const TRACING: &[c_long] = &[
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    // Files of /proc and /sys, and new files of a recording.
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    // Netlink, the legacy tables of iptables, and the connections of the proof of IPVS's structs.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// The bits of a socket's type without flags (`SOCK_TYPE_MASK`, linux/net.h).
const SOCKET_TYPE: libc::c_int = 0xf;
/// Requests to a terminal that put characters into its input, as if the user had typed them (uapi/asm-generic/ioctls.h,
/// uapi/linux/tiocl.h).
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// Calls that are allowed with some arguments.
fn some(rules: &mut Rules) -> Result<(), BackendError> {
    let own = std::process::id().cast_signed();
    let only = |condition| SeccompRule::new(vec![condition]);
    let typing = vec![other(1, TIOCSTI)?, other(1, TIOCLINUX)?];
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(typing)?]);
    let options = [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_SET_VMA,
        libc::PR_SET_NO_NEW_PRIVS,
        libc::PR_GET_NO_NEW_PRIVS,
    ];
    let options: Result<Vec<_>, BackendError> = options
        .into_iter()
        .map(|option| only(equal(0, option)?))
        .collect();
    rules.insert(libc::SYS_prctl, options?);
    // Signals to its own threads, and to its own process group when the user suspends the screen.
    rules.insert(libc::SYS_tgkill, vec![only(equal(0, own)?)?]);
    rules.insert(libc::SYS_kill, vec![only(equal(0, 0)?)?, only(equal(0, own)?)?]);
    // Limits of its own.
    rules.insert(libc::SYS_prlimit64, vec![only(equal(0, 0)?)?]);
    rules.insert(libc::SYS_socketpair, vec![only(equal(0, libc::AF_UNIX)?)?]);
    Ok(())
}

fn all_of(lists: &[&[c_long]]) -> Result<Rules, BackendError> {
    let calls = lists.iter().flat_map(|list| list.iter());
    let mut rules: Rules = calls.map(|call| (*call, Vec::new())).collect();
    some(&mut rules)?;
    Ok(rules)
}

/// The calls of live tracing.
pub(super) fn tracing() -> Result<Calls, BackendError> {
    let mut rules = all_of(&[ALL, NAMES, TRACING])?;
    let only = |condition| SeccompRule::new(vec![condition]);
    rules.insert(libc::SYS_setns, vec![only(equal(1, libc::CLONE_NEWNET)?)?]);
    rules.insert(libc::SYS_unshare, vec![only(equal(0, libc::CLONE_NEWNET)?)?]);
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let mut families = families
        .into_iter()
        .map(|family| only(equal(0, family)?))
        .collect::<Result<Vec<_>, BackendError>>()?;
    // `if_nametoindex` of the C library. No stream sockets, which container runtimes and other daemons listen on.
    let names = vec![
        equal(0, libc::AF_UNIX)?,
        masked(1, SOCKET_TYPE, libc::SOCK_DGRAM)?,
    ];
    families.push(SeccompRule::new(names)?);
    rules.insert(libc::SYS_socket, families);
    Ok(Calls {
        allowed: rules,
        without_access: Vec::new(),
    })
}

/// The calls of a command that reads recordings. `has_screen`: it opens the terminal and writes new files. `has_output`: it
/// names or removes its output.
pub(super) fn reading(has_screen: bool, has_output: bool) -> Result<Calls, BackendError> {
    let mut rules = all_of(&[ALL])?;
    if has_output {
        rules.extend(NAMES.iter().map(|call| (*call, Vec::new())));
    }
    let mut without_access = vec![libc::SYS_open, libc::SYS_openat];
    if has_screen {
        // Landlock decides which files.
        without_access.clear();
        rules.insert(libc::SYS_open, opens(1)?);
        rules.insert(libc::SYS_openat, opens(2)?);
    }
    Ok(Calls {
        allowed: rules,
        without_access,
    })
}

/// Opens to read, and creates what does not exist yet. Existing files cannot be written to.
fn opens(flags: u8) -> Result<Vec<SeccompRule>, BackendError> {
    let read = masked(
        flags,
        libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC,
        libc::O_RDONLY,
    )?;
    let new = libc::O_CREAT | libc::O_EXCL;
    Ok(vec![
        SeccompRule::new(vec![read])?,
        SeccompRule::new(vec![masked(flags, new, new)?])?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_has_a_call_that_runs_or_traces_a_program() {
        let forbidden = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_mount,
            libc::SYS_setuid,
            libc::SYS_io_uring_setup,
        ];
        for rules in [tracing(), reading(true, true)] {
            let rules = rules.expect("rules").allowed;
            assert!(forbidden.iter().all(|call| !rules.contains_key(call)));
        }
    }

    #[test]
    fn only_a_screen_opens_files_and_only_an_output_is_renamed() {
        let has = |screen, output, call| {
            reading(screen, output)
                .expect("rules")
                .allowed
                .contains_key(&call)
        };
        assert!(has(true, false, libc::SYS_openat) && !has(false, true, libc::SYS_openat));
        assert!(has(false, true, libc::SYS_rename) && !has(true, false, libc::SYS_rename));
        assert!(!has(true, true, libc::SYS_socket) && !has(true, true, libc::SYS_bpf));
    }
}
