//! Probes that the kernel skips.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Follows the record of a packet at a tracepoint while the kernel skips kprobes on this CPU: a softirq that interrupted a
/// probe's handler handles the packet. Tracepoints are not skipped.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Skipped {
    /// The probe whose handler was running on this CPU: address of its `struct kprobe` (`current_kprobe`,
    /// `arch/x86/kernel/kprobes/core.c`, 3.10 to 7.3); 0 if there was none.
    pub kprobe: u64,
    /// How many BPF programs that exclude others were running on this CPU (`bpf_prog_active`, `kernel/bpf/syscall.c`, 4.1
    /// to 7.3).
    pub programs: u32,
    /// Always 0.
    pub reserved: u32,
}
