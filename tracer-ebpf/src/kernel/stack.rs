//! Which functions had called one another when a packet was discarded.

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

/// Tells the stack. Of netfilter's drops it alone says at which of its hooks a packet was.
#[inline(always)]
pub(super) fn tell(hook: Hook, ctx: &RawTracePointContext, packet: &Packet, flow: &FlowRef) {
    emit(hook, |header, out: &mut Stack| {
        emit::describe(header, hook, packet, flow);
        // SAFETY: the helper writes no more than the size it is given. Where it fails it leaves zeroes, or writes them.
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
