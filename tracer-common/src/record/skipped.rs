//! What tells that the kernel runs no probes for a packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Follows the record of a packet at a tracepoint where the kernel skipped the kprobes on its way: softirq handled it on a
/// CPU where it had interrupted a probe's handler. Tracepoints are not skipped.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Skipped {
    /// The probe whose handler was at work on this CPU: address of its `struct kprobe` (`current_kprobe`,
    /// `arch/x86/kernel/kprobes/core.c`, 3.10 to 7.3); 0 if there was none.
    pub kprobe: u64,
    /// How many BPF programs that suffer no other were at work on this CPU (`bpf_prog_active`, `kernel/bpf/syscall.c`, 4.1
    /// to 7.3).
    pub programs: u32,
    /// Always 0.
    pub reserved: u32,
}
