//! How often the kernel skipped tracer's programs, as far as it counts that.
//!
//! Since 6.7 it counts for each program how often another one kept it from running (`trace_call_bpf`,
//! `kernel/trace/bpf_trace.c`), and for each attached kprobe how often it was hit inside another one, or found no room to
//! follow a return (`bpf_link_info.perf_event.kprobe.missed`). Kernels before that count at most a part of it.
#![allow(unsafe_code, reason = "the bpf system call takes pointers")]

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use aya::{
    Ebpf,
    programs::{Program, loaded_links},
};
use nix::libc;
use tracer_common::hook::HookInfo;

/// Commands of the system call (`uapi/linux/bpf.h`).
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;

/// Room for a `struct bpf_link_info`.
const LINK_INFO_LEN: usize = 256;

/// How often each hook's programs were skipped, by the hook's name; hooks that were never skipped are left out. `missed_at` is
/// the offset of the counter in `struct bpf_link_info`.
pub(super) fn read<'a>(
    ebpf: &Ebpf,
    hooks: impl Iterator<Item = &'a HookInfo>,
    missed_at: u32,
) -> BTreeMap<&'a str, u64> {
    let by_link = of_links(missed_at);
    let mut out = BTreeMap::new();
    for info in hooks {
        let programs = [info.name, info.exit_program];
        let programs = programs.into_iter().filter_map(|name| ebpf.program(name));
        let missed = programs
            .filter_map(|program| {
                let (id, fd) = identify(program)?;
                let by_link = by_link.get(&id).copied().unwrap_or(0);
                Some(of_program(fd).saturating_add(by_link))
            })
            .fold(0, u64::saturating_add);
        if missed != 0 {
            out.insert(info.name, missed);
        }
    }
    out
}

/// Number and descriptor of a loaded program.
fn identify(program: &Program) -> Option<(u32, RawFd)> {
    let (info, fd) = match program {
        Program::KProbe(program) => (program.info(), program.fd()),
        Program::RawTracePoint(program) => (program.info(), program.fd()),
        _ => return None,
    };
    Some((info.ok()?.id(), fd.ok()?.as_fd().as_raw_fd()))
}

/// How often another program kept this one from running (`bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`).
fn of_program(fd: RawFd) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let counted = text
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"));
    counted.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// How often attached kprobes were skipped, by the number of their program.
fn of_links(missed_at: u32) -> BTreeMap<u32, u64> {
    let mut out: BTreeMap<u32, u64> = BTreeMap::new();
    for link in loaded_links().filter_map(Result::ok) {
        if let Some(missed) = open_link(link.id()).and_then(|fd| of_link(&fd, missed_at)) {
            let sum = out.entry(link.program_id()).or_default();
            *sum = sum.saturating_add(missed);
        }
    }
    out
}

/// A descriptor of the link with this number.
fn open_link(id: u32) -> Option<OwnedFd> {
    // The rest of the union is 0.
    let mut attributes = [0_u32; 4];
    attributes[0] = id;
    // SAFETY: the pointer leads to as many bytes as are given; the kernel only reads them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_GET_FD_BY_ID,
            attributes.as_mut_ptr(),
            size_of_val(&attributes),
        )
    };
    let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel has just opened it, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The counter of a link; 0 for links that are no kprobes, and have something else there.
fn of_link(fd: &OwnedFd, missed_at: u32) -> Option<u64> {
    /// `BPF_LINK_TYPE_PERF_EVENT`, and `BPF_PERF_EVENT_KPROBE` and `BPF_PERF_EVENT_KRETPROBE` behind it.
    const PERF_EVENT: u32 = 7;
    const KPROBES: [u32; 2] = [3, 4];
    /// Offset of the type of the event: the link has type, number and program before it, and four bytes of padding.
    const EVENT_TYPE_AT: usize = 16;
    let mut info = [0_u8; LINK_INFO_LEN];
    let fd = u32::try_from(fd.as_raw_fd()).ok()?;
    let mut attributes = [
        u64::from(fd) | (LINK_INFO_LEN as u64) << 32,
        info.as_mut_ptr() as u64,
    ];
    // SAFETY: both pointers lead to as many bytes as are given. The kernel writes at most that many.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            attributes.as_mut_ptr(),
            size_of_val(&attributes),
        )
    };
    let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    if status != 0 || word(0) != Some(PERF_EVENT) || !KPROBES.contains(&word(EVENT_TYPE_AT)?) {
        return None;
    }
    let at = missed_at as usize;
    Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?))
}
