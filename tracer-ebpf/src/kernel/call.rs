//! Joins the return of a function to its entry.
//!
//! The key is the stack pointer at entry, the address of the return address: at return the stack pointer is one
//! word above it. It is unique to the call on every stack, so it holds in softirq, under preemption and for
//! nested calls, where the task's id (what such probes usually key on) does not.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    hook::Hook,
    record::{Header, Phase},
};

use super::{emit, flow::FlowRef, log::debug, packet::Packet};

/// A call that has begun.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Call {
    pub(super) header: Header,
    /// A pointer from the arguments that the body wants again at the return.
    pub(super) first: u64,
    /// Another one.
    pub(super) second: u64,
}

#[map]
static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(4096, 0);

/// A return that was missed leaves its entry behind; a later call at the same depth must not take it for its own.
/// None of the functions takes this long, but a starved virtual machine may stand still for a while inside one.
const LONGEST_CALL_NS: u64 = 2_000_000_000;

const WORD: u64 = 8;

/// Remembers a call about `packet` until it returns. `then` sees what was remembered.
#[inline(always)]
pub(super) fn enter(
    hook: Hook,
    ctx: &ProbeContext,
    packet: &Packet,
    flow: &FlowRef,
    arguments: (u64, u64),
    then: impl FnOnce(&Header),
) {
    // SAFETY: the context is valid while the program runs.
    let key = unsafe { (*ctx.regs).rsp };
    let mut call = Call {
        first: arguments.0,
        second: arguments.1,
        ..Call::default()
    };
    emit::describe(&mut call.header, hook, packet, flow);
    call.header.call = key;
    let _ = CALLS.insert(&key, &call, 0);
    then(&call.header);
}

/// Hands `then` the call that returns here, with time and verdict filled in, if its entry was ours.
#[inline(always)]
pub(super) fn leave(hook: Hook, ctx: &RetProbeContext, then: impl FnOnce(&mut Call)) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let key = unsafe { (*ctx.regs).rsp }.wrapping_sub(WORD);
    // SAFETY: the entry is this call's alone, and stays valid while the program runs.
    let call = unsafe { &mut *CALLS.get_ptr_mut(&key)? };
    // SAFETY: the helper takes no pointer.
    let now = unsafe { bpf_ktime_get_ns() };
    if call.header.hook == hook as u16 && now.wrapping_sub(call.header.time_ns) <= LONGEST_CALL_NS {
        call.header.time_ns = now;
        call.header.phase = Phase::Return as u8;
        call.header.verdict = ctx.ret::<u64>() as i32;
        then(call);
    } else {
        debug!(ctx, "hook {}: the return of another call was missed", hook as u16);
    }
    CALLS.remove(&key).ok()
}

/// Writes a record with nothing but the front.
#[inline(always)]
pub(super) fn emit_front(hook: Hook, front: &Header) {
    emit::emit(hook, |header, (): &mut ()| *header = *front);
}
