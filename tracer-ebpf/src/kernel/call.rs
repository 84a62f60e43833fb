//! Pairs the return of a function with its entry.
//!
//! The key is the stack pointer at entry, which is where the return address is: at return the stack pointer is one
//! word above it. It is unique to the call on every stack, so it also works in softirq, under preemption and for
//! nested calls. The task ID, the usual key of such probes, does not.

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

/// A call that has not returned yet.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Call {
    pub(super) header: Header,
    /// Values that the body keeps from entry to return, mostly pointers from the arguments.
    pub(super) kept: (u64, u64),
}

#[map]
static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(4096, 0);

/// The longest time from entry to return. A missed return leaves its entry in the map, and a later call at the same stack
/// depth must not pick it up. No function takes this long, but a virtual machine may be paused for a while inside one.
const LONGEST_CALL_NS: u64 = 2_000_000_000;

const WORD: u64 = 8;

/// Keeps a call about `packet` until it returns, and hands its header to `then`.
#[inline(always)]
pub(super) fn enter(
    hook: Hook,
    ctx: &ProbeContext,
    packet: &Packet,
    flow: &FlowRef,
    kept: (u64, u64),
    then: impl FnOnce(&Header),
) {
    // SAFETY: the context is valid while the program runs.
    let key = unsafe { (*ctx.regs).rsp };
    let mut call = Call {
        kept,
        ..Call::default()
    };
    emit::describe(&mut call.header, hook, packet, flow);
    call.header.call = key;
    let _ = CALLS.insert(&key, &call, 0);
    then(&call.header);
}

/// Hands `then` the call that returns here, with time and verdict filled in, if its entry was kept.
#[inline(always)]
pub(super) fn leave(hook: Hook, ctx: &RetProbeContext, then: impl FnOnce(&mut Call)) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let key = unsafe { (*ctx.regs).rsp }.wrapping_sub(WORD);
    // SAFETY: the value is plain bytes and is copied at once. Another CPU may evict the entry and reuse its memory in the
    // meantime; the copy then has that call's key.
    let mut call = *unsafe { CALLS.get(&key) }?;
    // SAFETY: the helper takes no pointer.
    let now = unsafe { bpf_ktime_get_ns() };
    let is_this_call = call.header.call == key
        && call.header.hook == hook as u16
        && now.wrapping_sub(call.header.time_ns) <= LONGEST_CALL_NS;
    if is_this_call {
        call.header.time_ns = now;
        call.header.phase = Phase::Return as u8;
        call.header.verdict = ctx.ret::<u64>() as i32;
        then(&mut call);
    } else {
        debug!(ctx, "hook {}: missed the return of an earlier call", hook as u16);
    }
    CALLS.remove(&key).ok()
}

/// Writes a record that is this header alone.
#[inline(always)]
pub(super) fn emit_header(hook: Hook, of_call: &Header) {
    emit::emit(hook, |header, (): &mut ()| *header = *of_call);
}
