//! Detects that the kernel skips tracer's probes.
//!
//! The kernel skips a kprobe that is hit while the handler of another one runs on the same CPU, and keeps no count that
//! could be related to a packet (`kprobe_ftrace_handler`, `arch/x86/kernel/kprobes/ftrace.c`; `trace_call_bpf`,
//! `kernel/trace/bpf_trace.c`). This affects all packets that a softirq handles after it interrupted such a handler, of
//! tracer's or of another tool's: their whole path through the node has no probe. Raw tracepoints are not skipped, so they
//! check.

use aya_ebpf::{Global, helpers::bpf_get_smp_processor_id};
use tracer_common::{hook::Hook, record::Skipped};

use super::{
    emit::{self, emit},
    fields::read_at,
    flow::FlowRef,
    packet::Packet,
};

/// Address of `__per_cpu_offset`, set by the loader; 0 if unknown: then nothing is recorded.
#[unsafe(no_mangle)]
static PER_CPU_OFFSET: Global<u64> = Global::new(0);

/// Per-CPU offset of `current_kprobe`; 0 if unknown.
#[unsafe(no_mangle)]
static CURRENT_KPROBE: Global<u64> = Global::new(0);

/// Per-CPU offset of `bpf_prog_active`; 0 if unknown.
#[unsafe(no_mangle)]
static BPF_PROG_ACTIVE: Global<u64> = Global::new(0);

/// Records, after the record of a tracepoint, that the kernel skips probes on this CPU now.
#[inline(always)]
pub(super) fn emit_skipped(hook: Hook, packet: &Packet, flow: &FlowRef) -> Option<()> {
    let offsets = PER_CPU_OFFSET.load();
    if offsets == 0 {
        return None;
    }
    // SAFETY: the helper takes no pointer.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let base: u64 = read_at(offsets.wrapping_add(cpu * size_of::<u64>() as u64))?;
    let (kprobe, programs) = (CURRENT_KPROBE.load(), BPF_PROG_ACTIVE.load());
    let kprobe: u64 = if kprobe == 0 {
        0
    } else {
        read_at(base.wrapping_add(kprobe))?
    };
    let programs: u32 = if programs == 0 {
        0
    } else {
        read_at(base.wrapping_add(programs))?
    };
    if kprobe == 0 && programs == 0 {
        return None;
    }
    emit(hook, |header, out: &mut Skipped| {
        emit::describe(header, hook, packet, flow);
        out.kprobe = kprobe;
        out.programs = programs;
    });
    Some(())
}
