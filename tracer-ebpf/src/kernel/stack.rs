//! The call stack of a drop.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_get_stack, programs::RawTracePointContext};
use tracer_common::{
    hook::Hook,
    record::{FRAMES, Stack},
};

use super::{
    emit::{self, emit},
    flow::FlowRef,
    packet::Packet,
};

/// Records the call stack. For a drop by netfilter, nothing else shows at which hook the packet was.
#[inline(always)]
pub(super) fn emit_stack(hook: Hook, ctx: &RawTracePointContext, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, out: &mut Stack| {
        emit::describe(header, hook, packet, flow);
        // SAFETY: the helper writes no more than the size it is given. If it fails, the frames are zeroes.
        unsafe {
            bpf_get_stack(
                ctx.as_ptr(),
                out.frames.as_mut_ptr().cast(),
                (FRAMES * size_of::<u64>()) as u32,
                0,
            )
        };
    });
}
